"""The public face of the package: what it lists, it has, and importing it costs nothing."""

from __future__ import annotations

import subprocess
import sys

import cl_remote_sensing

PUBLIC = """
    DemoConfig EvaluateConfig FinetuneConfig GLCNet Labels Legend MapJob MapResult MapValues
    PredictConfig PretrainConfig Raster SavedModel Scene SegmentationNetwork Window __version__
    build_network demo evaluate finetune job_of load load_model map_scene open_labels open_scene
    open_scenes predict pretrain
"""


def test_the_public_names_are_these_and_all_are_there():
    assert sorted(cl_remote_sensing.__all__) == sorted(PUBLIC.split())
    assert all(getattr(cl_remote_sensing, name) is not None for name in PUBLIC.split())


def test_importing_the_package_imports_neither_torch_nor_gdal():
    code = "import sys, cl_remote_sensing; print({'torch', 'rasterio'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
