import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumos.errors import DataError
from lumos.workloads.cfd.mesh import FAR_FIELD, WALL, Mesh, box_with_bump
from lumos.workloads.cfd.solver import Gas, compute_flux, far_flux, free_stream, gas, inner_flux, run, step, wall_flux


@st.composite
def gases(draw: st.DrawFn) -> Gas:
    """One physical state, of shape (1,)."""
    number = st.floats(-2, 2)
    rho, p = draw(st.floats(0.1, 5)), draw(st.floats(0.1, 5))
    v = np.array([draw(number) for _ in range(3)])
    return gas(np.array([[rho, *(rho * v), p / 0.4 + 0.5 * rho * v @ v]]))


@st.composite
def normals(draw: st.DrawFn) -> np.ndarray:
    vector = np.array([[draw(st.floats(-2, 2)) for _ in range(3)]])
    return vector if np.linalg.norm(vector) > 1e-3 else np.array([[1.0, 0.0, 0.0]])


@st.composite
def rotations(draw: st.DrawFn) -> np.ndarray:
    seed = draw(st.integers(0, 2**32 - 1))
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))
    return q * np.sign(np.diag(r))


def turned(w: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """States or fluxes with their vector part rotated (or reflected)."""
    return np.concatenate([w[..., :1], w[..., 1:4] @ rotation.T, w[..., 4:]], axis=-1)


@given(gases(), gases(), normals())
def test_what_one_side_gains_the_other_loses(one: Gas, other: Gas, normal: np.ndarray) -> None:
    np.testing.assert_allclose(inner_flux(one, other, normal), -inner_flux(other, one, -normal), rtol=0, atol=1e-12)


@pytest.mark.slow
@given(gases(), gases(), normals(), rotations())
def test_fluxes_turn_with_the_axes(one: Gas, other: Gas, normal: np.ndarray, rotation: np.ndarray) -> None:
    a, b, n = gas(turned(one.w, rotation)), gas(turned(other.w, rotation)), normal @ rotation.T
    for flux in (inner_flux, far_flux):
        np.testing.assert_allclose(flux(a, b, n), turned(flux(one, other, normal), rotation), rtol=0, atol=1e-10)
    np.testing.assert_allclose(wall_flux(a, n), turned(wall_flux(one, normal), rotation), rtol=0, atol=1e-12)


@given(gases(), normals())
def test_a_wall_passes_pressure_only(one: Gas, normal: np.ndarray) -> None:
    flux = wall_flux(one, normal)
    np.testing.assert_array_equal(flux[:, [0, 4]], 0)
    np.testing.assert_allclose(flux[:, 1:4], one.p[:, None] * normal)


@given(gases(), normals(), st.floats(0.1, 3))
def test_flux_grows_with_the_face(one: Gas, normal: np.ndarray, factor: float) -> None:
    np.testing.assert_allclose(inner_flux(one, one, factor * normal), factor * inner_flux(one, one, normal), atol=1e-12)


def test_one_face_by_hand() -> None:
    """rho 1, v (1,0,0), p 1 beside gas at rest with rho 2, p 2; a face of area 2 whose inward normal is +x."""
    moving, still = gas(np.array([[1.0, 1, 0, 0, 3.0]])), gas(np.array([[2.0, 0, 0, 0, 5.0]]))
    np.testing.assert_allclose([moving.p[0], still.p[0]], [1, 2])
    c = np.sqrt(1.4)
    np.testing.assert_allclose([moving.c[0], still.c[0]], [c, c])
    # F_i.n = 2 (1, 2, 0, 0, 4), F_j.n = 2 (0, 2, 0, 0, 0); the dissipation is 2 * 0.2 * (1 + 2c)/2 * (W_i - W_j).
    damping = 0.2 * (1 + 2 * c)
    expected = [1 + damping, 4 - damping, 0, 0, 4 + 2 * damping]
    np.testing.assert_allclose(inner_flux(moving, still, np.array([[2.0, 0, 0]]))[0], expected, atol=1e-14)
    np.testing.assert_allclose(far_flux(moving, still, np.array([[2.0, 0, 0]]))[0], [1, 4, 0, 0, 4], atol=1e-14)


def test_free_stream_is_as_documented() -> None:
    np.testing.assert_allclose(free_stream(1.2), [1.4, 1.68, 0, 0, 2.5 + 0.7 * 1.44])
    tilted = gas(free_stream(0.5, 30.0)[None])
    np.testing.assert_allclose(tilted.v[0], [0.5 * np.sqrt(3) / 2, 0.25, 0])
    np.testing.assert_allclose([tilted.p[0], tilted.c[0], tilted.speed[0]], [1, 1, 0.5])


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return box_with_bump((5, 4, 3))


def test_undisturbed_flow_stays_without_walls(mesh: Mesh) -> None:
    open_mesh = Mesh(mesh.area, np.where(mesh.neighbour == WALL, FAR_FIELD, mesh.neighbour), mesh.normal)
    for w in run(open_mesh, mach=1.2, angle=7.0, iterations=5):
        np.testing.assert_allclose(w, np.repeat(free_stream(1.2, 7.0)[None], len(mesh), 0), rtol=0, atol=1e-13)


def test_only_the_boundary_adds_or_takes(mesh: Mesh) -> None:
    """Inner fluxes cancel in pairs, so that the sum over all faces is the sum over the outer ones."""
    *_, w = run(mesh, mach=0.8, angle=2.0, iterations=5)
    flux = compute_flux(mesh, gas(w), gas(free_stream(0.8, 2.0)[None]))
    inner = mesh.neighbour >= 0
    assert np.abs(flux[inner]).sum() > 1
    np.testing.assert_allclose(flux[inner].sum(0), 0, atol=1e-12)


def test_a_step_follows_the_formula(mesh: Mesh) -> None:
    far = gas(free_stream(1.2)[None])
    w0 = np.repeat(far.w, len(mesh), 0)
    s = 0.5 / (np.sqrt(mesh.area) * 2.2)
    w = w0
    for divisor in (4, 3, 2):
        w = w0 + (s / divisor)[:, None] * compute_flux(mesh, gas(w), far).sum(1)
    np.testing.assert_allclose(step(mesh, w0, far), w, rtol=0, atol=1e-14)


def test_a_flow_that_is_not_physical_is_named(mesh: Mesh) -> None:
    with pytest.raises(DataError, match=r"Mach 5, angle 60, iteration \d+: .*not positive.*lower Mach"):
        list(run(mesh, mach=5.0, angle=60.0, iterations=80))
    with pytest.raises(DataError, match="Mach number > 0"):
        free_stream(0.0)
