from __future__ import annotations

import pytest
from torch.utils.data import DataLoader, Dataset

from cl_core.errors import InputError


class Broken(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, row):
        raise InputError("photo.jpg is cut short; replace it (Error: or skip it)")


def test_a_fault_met_in_a_worker_is_still_one_line():
    with pytest.raises(InputError, match=r"^photo\.jpg is cut short; .*$") as caught:
        next(iter(DataLoader(Broken(), num_workers=1)))
    assert "Traceback" not in str(caught.value)
