"""The calls in the examples for containers are calls of ours, and what a file refers to is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from singleton_run.call import click_parser, crontab_call
from singleton_run.call.settings import check
from singleton_run.crontab import reading
from tests.support.harness import TREE

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = TREE / "examples"
FILES = sorted(file for file in EXAMPLES.rglob("*.yaml") if file.parent.name != "monitoring")
COMPOSE = yaml.safe_load((EXAMPLES / "compose.yaml").read_text(encoding="utf-8"))


def containers(document: object) -> Iterator[dict[str, Any]]:
    """Every container in objects of Kubernetes, and every service of a compose file."""
    if isinstance(document, dict):
        if "image" in document:
            yield document
        document = list(document.values())
    for part in document if isinstance(document, list) else []:
        yield from containers(part)


def calls() -> Iterator[tuple[str, list[str]]]:
    """Each call of singleton-run in the examples, without the program, by the file and its name in there."""
    for file in FILES:
        for container in containers(list(yaml.safe_load_all(file.read_text(encoding="utf-8")))):
            program = container.get("entrypoint") or container.get("command") or []
            ours = "/singleton-run:" in container["image"]
            if ours or (program and program[0].rpartition("/")[2] == "singleton-run"):
                more = container.get("args") if "entrypoint" not in container else container["command"]
                words = [*program, *(more or [])]
                yield file.name, words if ours else words[1:]


@pytest.mark.parametrize(("file", "words"), [*calls()])
def test_a_call_is_one_of_ours(file: str, words: list[str]) -> None:
    if words[0] == "install":
        assert len(words) == 2
        return
    if words[0] == "crontab":
        _check_crontab(file, words[1:])
        return
    values = click_parser.parse(words, {})
    settings = check(values, {})
    assert settings.name
    assert settings.scheme in ("etcd", "k8s-lease")


def _check_crontab(file: str, words: list[str]) -> None:
    """The call is one of ours, and so is each line of the crontab in the file's ConfigMap that it names."""
    given = crontab_call.read(words)
    assert given is not None
    files = given.pop("files")
    assert isinstance(files, tuple)
    (path,) = files
    documents = [*yaml.safe_load_all((EXAMPLES / "kubernetes" / file).read_text(encoding="utf-8"))]
    (texts,) = [document["data"] for document in documents if document["kind"] == "ConfigMap"]
    (container,) = [each for document in documents for each in containers(document)]
    directory, name = str(path).rsplit("/", 1)
    assert directory in [mount["mountPath"] for mount in container["volumeMounts"]]
    options = {option: value for option, value in given.items() if option == "lock"}
    jobs = reading.read([(str(path), texts[name])], reading.Call(options, {}))  # type: ignore[arg-type]
    assert jobs
    assert all(job.named for job in jobs)
    assert {job.settings.scheme for job in jobs} == {"k8s-lease"}


def test_each_example_has_a_call() -> None:
    files = {file.name for file in FILES} - {"role.yaml"}
    assert {file for file, _ in calls()} == files


def test_what_compose_refers_to_is_there() -> None:
    for service in COMPOSE["services"].values():
        assert set(service.get("depends_on", {})) <= set(COMPOSE["services"])
        assert {volume.partition(":")[0] for volume in service.get("volumes", [])} <= set(COMPOSE["volumes"])
    lock = COMPOSE["services"]["cleanup"]["entrypoint"][2]
    assert lock in [f"etcd://{name}:2379" for name in COMPOSE["services"]]
