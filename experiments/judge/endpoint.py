"""One question to an OpenAI-compatible endpoint. Waiting and trying again is left to the `openai` client.

It tries again after 408, 409, 429, 5xx, timeouts and broken connections, waits as long as `Retry-After` says (up to two
minutes) or twice as long each time, less a random quarter at most.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from experiments.judge.settings import JudgeSettings

Messages = Sequence[dict[str, str]]
LONGEST_MESSAGE = 300  # characters of an endpoint's complaint that are shown


class JudgeUnavailable(RuntimeError):
    """This question got no answer: the endpoint was busy, slow or broken to the end, or its answer is no completion."""


class JudgeRefused(RuntimeError):
    """No question will get an answer: the key, the model or the request is refused."""


@dataclass(frozen=True)
class Reply:
    """What the judge wrote; `finish_reason` is "length" for a text that was cut."""

    text: str
    finish_reason: str | None


class Endpoint:
    """Asks the model of `settings`. Raises ValueError when the client is not installed or no judge is chosen."""

    def __init__(self, settings: JudgeSettings) -> None:
        if settings.name == "none":
            raise ValueError("judge=none: choose one with judge=openai judge.base_url=ADDRESS judge.model=NAME")
        try:
            import openai
        except ImportError as error:
            raise ValueError("judge=openai needs the openai client: pip install 'lorta[judge]'") from error
        self._errors, self.settings = openai, settings
        self._key = os.environ.get(settings.api_key_variable, "")
        self._client: Any = openai.OpenAI(
            base_url=settings.base_url,
            api_key=self._key or "none",  # local servers ask for none, the client for some
            timeout=settings.timeout_s,
            max_retries=settings.max_retries,
        )

    def ask(self, messages: Messages) -> Reply:
        """Return the judge's reply. Raises JudgeUnavailable or JudgeRefused."""
        optional = {} if self.settings.temperature is None else {"temperature": self.settings.temperature}
        parameters: dict[str, Any] = {"max_tokens": self.settings.max_tokens, "n": 1, **optional}
        try:
            completion: Any = self._client.chat.completions.create(
                model=self.settings.model or "", messages=list(messages), **parameters
            )
        except self._errors.APIStatusError as error:
            raise self._status(error) from None  # the chain holds the request, and with it the key
        except json.JSONDecodeError as error:
            raise JudgeUnavailable(f"{self.settings.base_url} sent what is no JSON ({error})") from None
        except self._errors.APIError as error:
            raise JudgeUnavailable(f"{type(error).__name__}: {self._clean(error)}") from None
        return self._reply(completion)

    def _status(self, error: Any) -> JudgeUnavailable | JudgeRefused:
        sentence = f"{self.settings.base_url} answered {error.status_code}: {self._clean(error)}"
        if error.status_code in (408, 409, 429) or error.status_code >= 500:
            return JudgeUnavailable(f"{sentence} (tried {self.settings.max_retries + 1} times)")
        if error.status_code in (401, 403):
            return JudgeRefused(f"{sentence}; the key is read from the variable {self.settings.api_key_variable}")
        return JudgeRefused(sentence)

    def _clean(self, error: Exception) -> str:
        """Return the error's first line without the key, which an endpoint may have sent back."""
        text = (str(error) or type(error).__name__).splitlines()[0]
        return (text.replace(self._key, "***") if self._key else text)[:LONGEST_MESSAGE]

    def _reply(self, completion: Any) -> Reply:
        try:
            choice = completion.choices[0]
            text, reason = choice.message.content, choice.finish_reason
        except (AttributeError, IndexError, TypeError):
            raise JudgeUnavailable(f"{self.settings.base_url} sent no chat completion") from None
        if not isinstance(text, str):
            raise JudgeUnavailable(f"{self.settings.base_url} sent a completion without text ({reason})")
        return Reply(text, reason)
