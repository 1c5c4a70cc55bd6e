from __future__ import annotations

import pytest

from neuralfield.errors import ConfigError
from neuralfield.fitting.options import FitOptions


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"steps": 0}, "fit.steps"),
        ({"steps": None}, "nothing would end this fit"),
        ({"seconds": -1.0}, "fit.seconds"),
        ({"seconds": float("nan")}, "finite"),
        ({"target_psnr": 500.0}, "fit.target_psnr"),
        ({"batch_size": "ful"}, "'full'"),
        ({"batch_size": 0}, "fit.batch_size"),
        ({"loss": "mes"}, "did you mean 'mse'"),
        ({"lr": -1e-3}, "fit.lr"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"schedule": "exponential", "final_lr": 0.0}, "above 0"),
        ({"beta2": 1.0}, "fit.beta2"),
        ({"eps": 0.0}, "fit.eps"),
        ({"precision": "float16"}, "float32, bfloat16"),
        ({"keep": "first"}, "last, best"),
    ],
)
def test_bad_values_name_the_option_and_what_it_takes(bad: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        FitOptions(**bad)


def test_a_whole_number_may_be_written_as_a_float() -> None:
    size = FitOptions(batch_size=1e4).batch_size
    assert size == 10000 and type(size) is int


def test_an_unknown_key_names_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'batch_size'"):
        FitOptions.from_dict({"batchsize": 3})


def test_identity_ignores_what_does_not_change_the_numbers() -> None:
    plain, resumed = FitOptions(), FitOptions(resume=True, checkpoint_seconds=1.0)
    assert plain.identity() == resumed.identity()
    assert plain.identity() != FitOptions(lr=1e-3).identity()
