import torch

from l2dm.bases.diffusion import NoiseSchedule, add_noise, derive_seed, training_target

# abar = 1, 0.64, 0.36: sqrt = 1, 0.8, 0.6 and sqrt(1 - abar) = 0, 0.6, 0.8
ABAR = torch.tensor([1.0, 0.64, 0.36])
Z = torch.full((3, 1, 1, 1), 10.0)
EPS = torch.full((3, 1, 1, 1), 5.0)
T = torch.tensor([0, 1, 2])


def test_add_noise_by_hand() -> None:
    noisy = add_noise(NoiseSchedule(ABAR, "epsilon"), Z, EPS, T)
    # 1*10 + 0*5, 0.8*10 + 0.6*5, 0.6*10 + 0.8*5
    assert torch.allclose(noisy.flatten(), torch.tensor([10.0, 11.0, 10.0]))


def test_epsilon_models_predict_the_noise() -> None:
    assert training_target(NoiseSchedule(ABAR, "epsilon"), Z, EPS, T) is EPS


def test_velocity_by_hand() -> None:
    target = training_target(NoiseSchedule(ABAR, "v_prediction"), Z, EPS, T)
    # 1*5 - 0*10, 0.8*5 - 0.6*10, 0.6*5 - 0.8*10
    assert torch.allclose(target.flatten(), torch.tensor([5.0, -2.0, -5.0]))


def test_velocity_agrees_with_diffusers() -> None:
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler()
    generator = torch.Generator().manual_seed(0)
    z, eps = (torch.randn(4, 2, 3, 3, generator=generator) for _ in range(2))
    t = torch.tensor([0, 10, 500, 999])
    schedule = NoiseSchedule(scheduler.alphas_cumprod, "v_prediction")
    assert torch.allclose(
        training_target(schedule, z, eps, t), scheduler.get_velocity(z, eps, t), atol=1e-6
    )
    assert torch.allclose(add_noise(schedule, z, eps, t), scheduler.add_noise(z, eps, t), atol=1e-6)


def test_seeds_are_functions_of_all_their_parts() -> None:
    assert derive_seed(1, "a", 2) == derive_seed(1, "a", 2)
    assert len({derive_seed(1, "a", 2), derive_seed(2, "a", 2), derive_seed(1, "a", 3)}) == 3
    assert 0 <= derive_seed(0) < 2**63
