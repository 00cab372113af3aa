"""One writer at a time in PostgreSQL, also when the server restarts in the middle of a job.

An advisory lock of a session keeps a second job out, and goes with the session, however the job ends. A restart of the
server ends the session, too, while the job goes on. So each holder also has a number, higher than the one before, and
every writing transaction compares its own number with the one in the table (a fencing token): a job that lost the lock
to another one cannot write.
"""

import os
import threading
from typing import Any

import psycopg
from psycopg import sql

from querylife.errors import QuerylifeError
from querylife_jobs.stores.postgres_sql import lock_holder, translated
from querylife_jobs.stores.store import LockedStoreError

WRITER_TABLE = sql.Identifier("querylife_writer")
LOCK_KEY = 0x71756572796C  # of pg_advisory_lock: "queryl"


class WriterLock:
    """Held from its creation until close. Raises LockedStoreError where another job holds it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._renewal = threading.Lock()
        self._session: Any = self._locked_session()
        try:
            self._number = self._next_number()
        except QuerylifeError:
            self._session.close()
            raise

    def close(self) -> None:
        self._session.close()

    def renew(self) -> None:
        """Take the lock again if its session has ended. Raises LockedStoreError where another job took it first."""
        with self._renewal:
            try:
                self._session.execute("SELECT 1")
                return
            except psycopg.Error:
                self._session.close()
            self._session = self._locked_session()
            try:
                self.check(self._session)
            except psycopg.Error as error:
                raise translated(error) from error

    def check(self, connection: Any) -> None:
        """Raises LockedStoreError where another job has had the lock since.

        Holds the number until the transaction ends, so that no other job gets the lock before.
        """
        row = connection.execute(sql.SQL("SELECT number FROM {} FOR SHARE").format(WRITER_TABLE)).fetchone()
        if row != (self._number,):
            raise LockedStoreError("another job has written to it since this job lost its connection; run it again")

    def _locked_session(self) -> Any:
        try:
            session = psycopg.connect(self._url, autocommit=True, application_name=f"querylife-jobs {os.getpid()}")
        except psycopg.Error as error:
            raise translated(error) from error
        try:
            if session.execute("SELECT pg_try_advisory_lock(%s)", [LOCK_KEY]).fetchone() == (True,):
                return session
            holder = lock_holder(session, LOCK_KEY)
        except psycopg.Error as error:
            raise translated(error) from error
        session.close()
        raise LockedStoreError(f"another job writes to it: {holder}")

    def _next_number(self) -> int:
        create = "CREATE TABLE IF NOT EXISTS {} (id boolean PRIMARY KEY, number bigint NOT NULL)"
        take = (
            "INSERT INTO {0} VALUES (true, 1) ON CONFLICT (id) DO UPDATE SET number = {0}.number + 1 RETURNING number"
        )
        try:
            self._session.execute(sql.SQL(create).format(WRITER_TABLE))
            return int(self._session.execute(sql.SQL(take).format(WRITER_TABLE)).fetchone()[0])
        except psycopg.Error as error:
            raise translated(error) from error
