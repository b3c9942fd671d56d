"""The settings of a judge: `conf/judge/NAME.yaml` and words such as `judge.model=NAME` on a command line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from lorta.config.settings import Positive, Settings, setting_problems
from lorta.config.suggestions import did_you_mean
from lorta.config.yaml_files import read_mapping, read_value


class JudgeSettings(Settings):
    """Which model judges, and how it is asked. The key is in the environment and nowhere else."""

    name: Literal["none", "openai"]
    base_url: str | None
    model: str | None
    api_key_variable: str
    temperature: Annotated[float, Field(ge=0.0)] | None
    max_tokens: Positive
    timeout_s: Annotated[float, Field(gt=0.0)]
    max_retries: Annotated[int, Field(ge=0)]
    workers: Positive


def judge_settings(words: Sequence[str], folder: Path) -> JudgeSettings:
    """Return the settings that `judge=NAME judge.key=value ...` mean; `folder` is `conf/judge`.

    Raises ValueError, one problem a line, for an unknown name or key, a value of the wrong type, or no model.
    """
    given = {key: value for key, _, value in (word.partition("=") for word in words)}
    name = given.pop("judge", "none")
    names = sorted(file.stem for file in folder.glob("*.yaml"))
    if name not in names:
        raise ValueError(f"judge={name}: no such judge{did_you_mean(name, names)}")
    values = read_mapping(folder / f"{name}.yaml")
    known = [f"judge.{key}" for key in values]
    unknown = [word for word in given if word not in known]
    if unknown:
        raise ValueError("\n".join(f"{word}: no such key{did_you_mean(word, known)}" for word in unknown))
    values |= {word.removeprefix("judge."): read_value(f"{word}={value}") for word, value in given.items()}
    try:
        settings = JudgeSettings.model_validate(values)
    except ValidationError as error:
        raise ValueError("\n".join(f"judge.{problem}" for problem in setting_problems(error))) from error
    if settings.name != "none" and not (settings.model and settings.base_url):
        raise ValueError(f"judge={name} needs judge.base_url=ADDRESS and judge.model=NAME")
    return settings
