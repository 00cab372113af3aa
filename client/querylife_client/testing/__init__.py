"""For tests of code that uses the client: servers that speak the real protocol, and fail when told to.

    with FakeTriton() as triton, Client(triton.address) as client:
        triton.script(Delay(0.2), Fail(grpc.StatusCode.UNAVAILABLE))
        client.embed_queries(["red dress"])     # slow once, refused once, then answered

FlakyNetwork stands between a client and any server, real or fake, and loses what passes through it.
"""

from querylife_client.testing.fake_genfilt import FakeGenFilt
from querylife_client.testing.fake_triton import FakeTriton
from querylife_client.testing.faults import Corrupt, Delay, Fail, Received
from querylife_client.testing.network import FlakyNetwork

__all__ = ["Corrupt", "Delay", "Fail", "FakeGenFilt", "FakeTriton", "FlakyNetwork", "Received"]
