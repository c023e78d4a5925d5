"""What `forgegate gate` does with its arguments."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from backends.admin_client import AdminClient
from finetune.candidacy import MOST_ITEMS, Judgement, Question, Saved, document_of, judge
from finetune.errors import RecipeUnusable
from finetune.evaluation import result
from finetune.evaluation.run import CACHE, Endpoint
from finetune.evaluation.suite import Rule, Suite, load
from finetune.gating.document import digest
from finetune.live import live_of
from finetune.publish import who
from finetune.recipelines import remedy_lines
from finetune.release import keep, negative_lines, suite_of
from finetune.run.folder import RunFolder
from finetune.running import URL, Gateway, find
from finetune.sharedanswers import shared_answers
from finetune.stages import shown
from finetune.verdictwords import lines


def run(args: argparse.Namespace) -> int:
    """Raises TrainError, DataError, BackendError."""
    return _saved(args) if args.result is not None else _asked(args)


def _asked(args: argparse.Namespace) -> int:
    gateway = _gateway(args)
    suite, rule = _suite(args)
    with AdminClient(gateway.admin_url, gateway.token) as client, shown(args.json) as tell:
        live = live_of(client, args.alias, args.candidate)
        if live.is_just(args.candidate):
            raise RecipeUnusable(f"{args.alias} serves {args.candidate} already: there is nothing to decide")
        cache = shared_answers(client, gateway, live.base, suite) or (args.out / CACHE if args.out else None)
        question = Question(suite, live, args.candidate, rule, args.max_items or MOST_ITEMS, cache)
        judgement = judge(question, Endpoint(gateway.url, gateway.token), tell)
        made = document_of(judgement, question, who())
        if args.out is not None:
            keep(judgement, made, args.out)
        if args.post is not False:
            client.add_verdict(made)
    return _tell(args, judgement, made, is_posted=args.post is not False)


def _saved(args: argparse.Namespace) -> int:
    saved = _chosen(args)
    judgement = saved.judge()
    made = saved.document(judgement, who())
    if args.out is not None:
        keep(judgement, made, args.out)
    if args.post:
        gateway = _gateway(args)
        with AdminClient(gateway.admin_url, gateway.token) as client:
            client.add_verdict(made)
    return _tell(args, judgement, made, is_posted=bool(args.post))


def _chosen(args: argparse.Namespace) -> Saved:
    """Raises RecipeUnusable."""
    seen = result.read(args.result)
    for name in (args.live, args.candidate):
        try:
            seen.place(name)
        except KeyError:
            known = ", ".join(dict.fromkeys(word for model in seen.models for word in (model.asked, model.resolved)))
            raise RecipeUnusable(f"{args.result}: {name} was not asked; there are {known}") from None
    return Saved(seen, args.live, args.candidate, args.rule or seen.suite["rule"])


def _gateway(args: argparse.Namespace) -> Gateway:
    """`--url` is where clients ask, as for `forgegate evaluate`."""
    env = {**os.environ, URL: args.url} if args.url else os.environ
    return find(args.admin_url, None, env)


def _suite(args: argparse.Namespace) -> tuple[Suite, Rule]:
    suite = load(args.suite) if args.suite else suite_of(args.run)
    return suite, args.rule or suite.rule


def _remedies(args: argparse.Namespace) -> Iterator[str]:
    return remedy_lines(RunFolder(args.run).recipe_yaml if args.run else Path())


def _tell(args: argparse.Namespace, judgement: Judgement, made: Mapping[str, Any], is_posted: bool) -> int:
    if args.json:
        print(
            json.dumps({"event": "verdict", "digest": digest(made), "is_posted": is_posted, **made}, ensure_ascii=False)
        )
    else:
        told = [*lines(made, judgement.verdict), *negative_lines(judgement, lambda: _remedies(args))]
        print("\n".join(told))
        if args.out is not None:
            print(f"answers and verdict: {args.out}")
    return 0 if judgement.is_go else 1
