"""Several questions of one context: how requests that ask them are named, checked and chained."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from harness.tasks.base import TaskRequest
from harness.tasks.drafts import Generator


def check_questions(
    num_questions: int, tasks: Sequence[str], generators: Mapping[str, Generator]
) -> None:
    """Raise ValueError where a context of some task cannot be asked so often."""
    for task in tasks:
        most = generators[task].most_questions
        if num_questions > most:
            able = [name for name, one in generators.items() if one.most_questions >= num_questions]
            instead = f", or task.tasks=[{','.join(able)}]" if able else ""
            raise ValueError(
                f"protocol.num_questions={num_questions}: a context of {task} can be asked {most}; "
                f"use {most}{instead}"
            )


def chained(asked: Sequence[TaskRequest]) -> list[TaskRequest]:
    """Requests on one context, in order, each with a name and a task of its own."""
    if len(asked) == 1:
        return list(asked)
    chain: list[TaskRequest] = []
    for number, request in enumerate(asked, start=1):
        chain.append(
            replace(
                request,
                uid=request.uid + _suffix(number),
                task=f"{request.task}_question_{number}",
                follows=chain[-1].uid if chain else None,
                question_number=number,
            )
        )
    return chain


def context_of(uid: str, question: int) -> str:
    """The name that all requests on a context share; question: the number of this one."""
    return uid.removesuffix(_suffix(question))


def chains(requests: Iterable[TaskRequest]) -> Iterator[list[TaskRequest]]:
    """Requests by the context that they ask."""
    chain: list[TaskRequest] = []
    for request in requests:
        if request.follows is None and chain:
            yield chain
            chain = []
        assert request.follows == (chain[-1].uid if chain else None), request.uid
        chain.append(request)
    if chain:
        yield chain


def _suffix(question: int) -> str:
    return f"-question-{question}"
