"""GPUs by name and by size."""

from __future__ import annotations

import pytest

from workbench.errors import WorkbenchError
from workbench.vram.gpus import catalogue, find_gpus, parse_gpu

NAMES = {
    "T4": "T4",
    "tesla t4": "T4",
    "NVIDIA A100-SXM4-80GB": "A100 SXM 80GB",
    "NVIDIA A100 80GB PCIe": "A100 PCIe 80GB",
    "NVIDIA A100-PCIE-40GB": "A100 SXM/PCIe 40GB",
    "NVIDIA H100 80GB HBM3": "H100 SXM 80GB",
    "NVIDIA H100 PCIe": "H100 PCIe 80GB",
    "NVIDIA H100 NVL": "H100 NVL 94GB",
    "NVIDIA GeForce RTX 4090": "RTX 4090",
    "rtx4090": "RTX 4090",
    "RTX 3090ti": "RTX 3090 Ti",
    "Tesla V100-SXM2-16GB": "V100 SXM 16GB",
    "NVIDIA RTX 6000 Ada Generation": "RTX 6000 Ada",
    "NVIDIA RTX A6000": "RTX A6000",
    "A10G": "A10G",
    "A10": "A10",
    "NVIDIA GH200 480GB": "GH200 480GB",
    "NVIDIA RTX PRO 6000 Blackwell Workstation Edition": "RTX PRO 6000 Blackwell",
    "AMD Radeon RX 7900 XTX": "RX 7900 XTX",
}


@pytest.mark.parametrize("text", NAMES)
def test_names_as_tools_print_them(text):
    assert parse_gpu(text).name == NAMES[text]


def test_every_catalogue_name_means_itself():
    for gpu in catalogue():
        assert parse_gpu(gpu.name) == gpu
        assert gpu.capacity_bytes > 3 * 2**30
        assert gpu.source


@pytest.mark.parametrize("text", ["RTX 4090 Laptop GPU", "RTX 4080 SUPER", "4060", "", "24", "Voodoo 2", "[/x]\x1b"])
def test_another_product_is_not_guessed(text):
    assert find_gpus(text) == []
    with pytest.raises(WorkbenchError, match="24GB") as caught:
        parse_gpu(text)
    assert caught.value.kind == "unknown-gpu"
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("text", ["A100", "A100 SXM", "v100", "H100"])
def test_a_name_of_several_capacities_is_asked_back(text):
    with pytest.raises(WorkbenchError) as caught:
        parse_gpu(text)
    assert caught.value.kind == "ambiguous-gpu"


@pytest.mark.parametrize(
    ("text", "capacity_bytes"),
    [("24GB", 24 * 10**9), ("22.5GiB", 24_159_191_040), ("80 gb", 80 * 10**9), ("512MiB", 2**29), ("16g", 16 * 10**9)],
)
def test_sizes_keep_decimal_and_binary_units_apart(text, capacity_bytes):
    assert parse_gpu(text).capacity_bytes == capacity_bytes


@pytest.mark.parametrize("text", ["0GB", "99999999999TB"])
def test_absurd_sizes_are_refused(text):
    with pytest.raises(WorkbenchError) as caught:
        parse_gpu(text)
    assert caught.value.kind == "bad-size"
