from __future__ import annotations

import pytest
import torch

from cl_core.matmul import add_product, affine, inner, matmul


def pair(dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(37, 53, generator=generator, dtype=torch.float64)
    b = torch.randn(53, 29, generator=generator, dtype=torch.float64)
    return (x.to(dtype).requires_grad_() for x in (a, b))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_values_and_gradients_are_those_of_the_product(dtype, tolerance):
    a, b = pair(dtype)
    weight = torch.linspace(-1, 1, 37 * 29, dtype=dtype).view(37, 29)
    (matmul(a, b) * weight).sum().backward()
    x, y = pair(torch.float64)
    (x @ y * weight.double()).sum().backward()
    torch.testing.assert_close(matmul(a, b).double(), x @ y, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(a.grad.double(), x.grad, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(b.grad.double(), y.grad, rtol=tolerance, atol=tolerance)


def test_factors_need_not_be_contiguous():
    a, b = (x.detach() for x in pair(torch.float32))
    torch.testing.assert_close(matmul(a.T.contiguous().T, b.T.contiguous().T), a @ b)


def test_only_the_gradients_asked_for_are_formed():
    a, b = pair(torch.float32)
    (only,) = torch.autograd.grad(matmul(a, b.detach()).sum(), [a])
    torch.testing.assert_close(only, b.detach().sum(1).expand_as(only))


def test_autocast_keeps_its_own_choice():
    a, b = pair(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert matmul(a, b).dtype == torch.bfloat16


@pytest.mark.parametrize("bias", [None, torch.arange(29.0)])
def test_an_affine_map_multiplies_with_the_rows_and_adds_the_bias(bias):
    a, b = (x.detach() for x in pair(torch.float32))
    expected = a @ b if bias is None else a @ b + bias
    torch.testing.assert_close(affine(b.T.contiguous(), bias)(a), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inner_and_added_products_equal_torchs(dtype):
    a, b = (x.detach() for x in pair(dtype))
    out = torch.empty(37, 29, dtype=dtype)
    torch.testing.assert_close(inner(a, b.T, out=out), a @ b)
    total = torch.ones(37, 29, dtype=dtype)
    add_product(total, a, b)
    torch.testing.assert_close(total, a @ b + 1)
    add_product(total, a.T.contiguous().T, b)  # a transposed left factor
    torch.testing.assert_close(total, 2 * (a @ b) + 1)
