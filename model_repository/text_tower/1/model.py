"""The text tower: token ids to states and a unit vector."""

from querylife.contract import TEXT_STATES, TEXT_TOWER, TOKEN_IDS, TOKEN_ROLES
from querylife.serving.backend.adapter import Adapter
from querylife.serving.backend.repository_files import repository_tokenizer, repository_tower
from querylife.serving.backend.request_arrays import check_token_roles
from querylife.serving.backend.towers import run_distinct


class TritonPythonModel(Adapter):
    model = TEXT_TOWER
    padded = (TOKEN_IDS, TOKEN_ROLES, TEXT_STATES)  # padding costs next to nothing: querylife_build.export.unpad

    def load(self, version_folder, parameters):
        self.tokenizer = repository_tokenizer(version_folder)
        self.tower = repository_tower(version_folder, TEXT_TOWER, parameters["threads"])

    def check(self, inputs):
        self.tower.check(inputs)
        self.tokenizer.check(inputs["token_ids"])
        check_token_roles(inputs["token_roles"])

    def compute(self, inputs, wanted):
        return run_distinct(inputs, lambda rows: self.tower.run(rows, wanted))
