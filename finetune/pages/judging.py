"""Blind judging as its page sees it: one prompt, two answers, no word of who gave which."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from backends.errors import AdminError
from finetune.errors import TrainError
from finetune.pages.asking import Background, Pair, PromptRefused, Votes
from finetune.pages.server import Json, Refused
from finetune.pages.session import CHOICES, Session, result_json


class Judging:
    """The server's app, and the works of the background. Whoever reads or changes the session holds the lock."""

    files: tuple[str, ...] = ("ab.html", "ab.js", "page.js", "page.css", "theme.css")

    def __init__(self, session: Session, pair: Pair, votes: Votes | None, tell: Callable[[str], None]) -> None:
        self._session, self._pair, self._tell = session, pair, tell
        self.lock = threading.Lock()
        self.problem = ""
        """Why answers do not come, for the page."""
        self.asking = Asking(self, session, pair)
        self.sending = Sending(self, session, votes)
        self.workers: tuple[Background, ...] = ()
        self._is_finished = False

    # What the page asks -----------------------------------------------------------------------------------------------

    def view(self, query: Mapping[str, str]) -> Json:
        with self.lock:
            return self._view()

    def act(self, name: str, body: Json) -> Json:
        with self.lock:
            if name == "vote":
                self._vote(body)
            elif name == "undo":
                self._undo()
            elif name == "finish":
                self._is_finished = True
            else:
                raise Refused("there is no such action")
            shown = self._view()
        for worker in self.workers:
            worker.wake()
        return shown

    @property
    def is_finished(self) -> bool:
        return self._is_finished

    def _vote(self, body: Json) -> None:
        prompt = self._session.current()
        if prompt is None or prompt.digest != body.get("pair") or prompt.digest not in self._session.answers:
            raise Refused("another pair is to be judged now: it may have been judged in another window")
        if (choice := body.get("choice")) not in CHOICES:
            raise Refused("choose 1, 2 or 0")
        self._session.vote(prompt, choice)

    def _undo(self) -> None:
        vote = self._session.undoable()
        if vote is None:
            raise Refused("there is nothing to take back")
        self._session.undo(vote)

    def _view(self) -> Json:
        session, prompt = self._session, self._session.current()
        shown: Json = {
            "done": session.num_done, "total": len(session.prompts), "can_undo": session.undoable() is not None,
            "problem": self.problem, "state": "waiting",
        }  # fmt: skip
        if self._is_finished:
            return {**shown, "state": "finished", "result": self.result()}
        if prompt is None:
            return {**shown, "state": "done"}
        if prompt.digest in session.answers:
            said = [{"role": one["role"], "content": one["content"]} for one in prompt.messages]
            answers = session.shown(prompt)
            return {**shown, "state": "pair", "pair": prompt.digest, "messages": said, "answers": list(answers)}
        return shown

    def result(self) -> Json:
        """Names are in it: it is for when the voting is over."""
        return result_json(self._pair.resolved, list(self._session.votes.values()))

    def broken(self, exc: Exception) -> None:
        """A work of the background ended by what it does not know."""
        self.problem = f"{type(exc).__name__}: {exc}"
        self._tell(f"error: {self.problem}")


class Asking:
    """Work: answers to the pairs that come next."""

    def __init__(self, judging: Judging, session: Session, pair: Pair) -> None:
        self._judging, self._session, self._pair = judging, session, pair

    def step(self) -> bool:
        with self._judging.lock:
            prompt = self._session.to_ask()
        if prompt is None:
            return False
        try:
            answers = self._pair.ask(prompt)
        except PromptRefused as exc:
            with self._judging.lock:
                self._session.add_failure(prompt, str(exc))
        except TrainError as exc:
            self._judging.problem = f"{exc}. It is asked again"
            return False
        else:
            with self._judging.lock:
                self._session.add_answers(prompt, answers)
        self._judging.problem = ""
        return True


class Sending:
    """Work: votes to the gateway, all but the last, which can still be taken back. The first that is not taken ends the sending."""

    def __init__(self, judging: Judging, session: Session, votes: Votes | None) -> None:
        self._judging, self._session, self._votes = judging, session, votes
        self.problem = "" if votes else "there is no gateway whose admin API is known here"

    def step(self) -> bool:
        return self._send(is_last_kept=True)

    def rest(self) -> None:
        """What is left, the last one too."""
        while self._send(is_last_kept=False):
            pass

    def _send(self, is_last_kept: bool) -> bool:
        with self._judging.lock:
            unsent = self._session.unsent()
            undoable = self._session.undoable() if is_last_kept else None
        vote = next((one for one in unsent if one is not undoable), None)
        if vote is None or self._votes is None or self.problem:
            return False
        try:
            self._votes.add(vote)
        except AdminError as exc:
            self.problem = str(exc)
            return False
        with self._judging.lock:
            self._session.mark_sent(vote)
        return True
