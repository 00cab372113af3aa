"""A text tower that repeats what it once computed; server_comparison puts it into a repository."""

import importlib.util
import time

import numpy as np

spec = importlib.util.spec_from_file_location("original", "ORIGINAL")
original = importlib.util.module_from_spec(spec)
spec.loader.exec_module(original)


class TritonPythonModel(original.TritonPythonModel):
    def load(self, version_folder, parameters):
        super().load(version_folder, parameters)
        self.rows = {}
        tower = self.encoder.tower if hasattr(self, "encoder") else self.tower
        self.compute_row, tower.run = tower.run, self.run

    def run(self, inputs, wanted):
        """inputs: [batch, length] each. Only vectors are remembered: states are as long as a batch's longest row."""
        if list(wanted) != ["text_embedding"]:
            return self.compute_row(inputs, wanted)
        used = inputs["token_roles"].any(axis=0)
        ids, token_roles = (inputs[name][:, used] for name in ("token_ids", "token_roles"))
        keys = [row.tobytes().rstrip(b"\0") for row in ids]
        for row, key in enumerate(keys):
            if key not in self.rows:
                inputs = {"token_ids": ids[row : row + 1], "token_roles": token_roles[row : row + 1]}
                self.rows[key] = self.compute_row(inputs, wanted)["text_embedding"][0]
        time.sleep(len(keys) * float("ROW_S"))
        return {"text_embedding": np.stack([self.rows[key] for key in keys])}
