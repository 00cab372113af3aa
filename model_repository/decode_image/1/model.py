"""Encoded pictures to pixels; a missing or broken one is marked, its neighbours are unharmed."""

from querylife.contract import DECODE_IMAGE
from querylife.serving.backend.adapter import Adapter
from querylife.serving.backend.nvimagecodec import open_decoder
from querylife.serving.backend.repository_files import repository_lock
from querylife.serving.backend.request_arrays import bytes_column, fault_column


class TritonPythonModel(Adapter):
    model = DECODE_IMAGE

    def load(self, version_folder, parameters):
        lock = repository_lock(version_folder)
        self.decoder = open_decoder(parameters, lock.image_size, lock.image_fit)

    def compute(self, inputs, wanted):
        images = bytes_column(inputs["image"])
        pictures = self.decoder.decode(images)
        return {
            "pixels": pictures.pixels,
            "image_used": pictures.used[:, None],
            "image_fault": fault_column(pictures.faults, len(images)),
        }
