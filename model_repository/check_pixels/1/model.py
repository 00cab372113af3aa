"""Pictures that a caller has decoded: planes of a wrong size are refused, and a missing picture's are blanked."""

import numpy as np

from querylife.contract import CHECK_PIXELS
from querylife.serving.backend.adapter import Adapter
from querylife.serving.backend.repository_files import repository_lock
from querylife.serving.backend.request_arrays import check_axes


class TritonPythonModel(Adapter):
    model = CHECK_PIXELS

    def load(self, version_folder, parameters):
        size = repository_lock(version_folder).image_size
        self.axes = {"decoded_image": ("batch", 3, size, size), "has_image": ("batch", 1)}

    def check(self, inputs):
        check_axes(inputs, self.axes)

    def compute(self, inputs, wanted):
        used = inputs["has_image"]
        return {"pixels": np.where(used[:, :, None, None], inputs["decoded_image"], np.uint8(0)), "image_used": used}
