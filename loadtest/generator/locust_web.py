"""Locust's page at /locust/: what to choose before a test, and first tokens and tokens in a table beside Locust's own."""

import itertools
import time
from typing import Any

import gevent
import orjson
from flask import Response, request
from locust import User, constant, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtest import users
from loadtest.generator.results import ResultWriter, SampleReporter
from loadtest.run_spec import RunSpec
from loadtest.statistics import STANDARD_OBJECTIVE, Window, figures
from loadtest.virtual_user import VirtualUser

TABLE = "tokens"
COLUMNS = (
    ("scenario", "Scenario"),
    ("answers", "Answers"),
    ("first_p50_ms", "First token p50 (ms)"),
    ("first_p95_ms", "First token p95 (ms)"),
    ("token_p50_ms", "Per token p50 (ms)"),
    ("tokens_per_s", "Tokens a second"),
    ("engines", "Answers by engine"),
)


def add_arguments(parser: LocustArgumentParser, order: RunSpec) -> None:
    parser.add_argument("--scenario", default=order.scenario, help=f"{', '.join(users.ALL)}, or a mix: image:3,video:1")
    parser.add_argument("--model", default=order.model, help="what requests name; auto lets the gateway choose")
    parser.add_argument("--seed", type=int, default=order.seed, help="the same seed asks the same questions")
    parser.add_argument("--api-key", default="", is_secret=True, help="where the gateway asks for one")


def web_user(order: RunSpec, reporter: SampleReporter) -> type[User]:
    """People who read the page's fields as each of them begins."""
    coming = itertools.count()

    class Visitor(User):
        wait_time = constant(0)

        def on_start(self) -> None:
            options = self.environment.parsed_options
            assert options is not None
            settings = order.request_settings()
            chosen = RunSpec(self.environment.host or order.url, options.model, options.scenario, "").request_settings()
            number = next(coming)
            self.seed = int(options.seed)
            self.scenario = users.mix(options.scenario).of(number)
            key = options.api_key or settings.key
            self.virtual_user = VirtualUser(
                number,
                type(settings)(to=chosen.to, model=options.model, key=key, trusted=settings.trusted),
                reporter.sample,
                gevent.sleep,
            )
            self.conversations = 0

        def on_stop(self) -> None:
            self.virtual_user.connection.close()

        @task
        def converse(self) -> None:
            conversation = self.scenario.conversation(self.seed, self.virtual_user.number, self.conversations)
            self.conversations += 1
            self.virtual_user.converse(self.scenario, conversation)

    return Visitor


def extend_web_ui(environment: Environment, kept: ResultWriter) -> None:
    """A tab of its own in Locust's page; its rows travel with Locust's statistics."""
    web = environment.web_ui
    assert web is not None
    assert web.app is not None
    web.template_args["extendedTabs"] = [{"title": "Tokens", "key": TABLE}]
    web.template_args["extendedTables"] = [
        {"key": TABLE, "structure": [{"key": key, "title": title} for key, title in COLUMNS]}
    ]

    def add_rows(response: Response) -> Response:
        if request.path.endswith("/stats/requests") and response.is_json:
            body = response.get_json() | {"extendedStats": [{"key": TABLE, "data": rows(kept)}]}
            response.set_data(orjson.dumps(body))
        return response

    web.app.after_request(add_rows)


def rows(kept: ResultWriter) -> list[dict[str, Any]]:
    now, found = time.time(), []
    for scenario in sorted({one.scenario for one in kept.samples}):
        samples = [one for one in kept.samples if one.scenario == scenario]
        started = min(one.began_s for one in samples)
        seen = figures(samples, Window(started, now), STANDARD_OBJECTIVE)
        found.append(
            {
                "scenario": scenario,
                "answers": seen.answered,
                "first_p50_ms": round(1000 * seen.first_p50_s),
                "first_p95_ms": round(1000 * seen.first_p95_s),
                "token_p50_ms": round(1000 * seen.token_p50_s, 1),
                "tokens_per_s": round(seen.tokens_per_s, 1),
                "engines": ", ".join(f"{name}: {count}" for name, count in seen.per_engine.items()),
            }
        )
    return found
