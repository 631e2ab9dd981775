"""What the model sees after every turn, to the character, with a given prompt file.

Search-R1 (both forms), R1-Searcher and SimpleDeepSearcher are written down by hand from the
contracts A3, B8, B9 and B10; the others from the published formats that docs/dialects.md names.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from agentic_r.agent.dialects import DIALECTS, dialect
from agentic_r.agent.dialects.tool_calling import SEARCH
from agentic_r.agent.rollout import run_rollout
from agentic_r.errors import LLMError
from agentic_r.protocols import Completion, Conversation, Message, Sampling
from agentic_r.testing import ScriptedLLM, TableRetriever
from agentic_r.testing.fakes import Said
from agentic_r.types import Passage, Question, ToolCall, Trajectory

BEES = Passage("a", "It is about bees.", "The Book")
QUOTED = Passage("b", "First line.\nSecond line.", 'A "quoted" one')
ULM = Passage("c", "Ulm is a city.", "Ulm")
TABLE = {
    "the book": [BEES, QUOTED],
    "its town": [ULM],
    "Who wrote the book": [ULM, BEES],
    "Who wrote the book Ada?": [BEES],
}


def play(
    name: str, prompt: str, script: Sequence[Said], *, turns: int = 0, invalid: str | None = None
) -> tuple[ScriptedLLM, Trajectory]:
    llm = ScriptedLLM(script)
    spoken = DIALECTS[name](prompt, turns=turns, invalid=invalid)
    [end] = run_rollout(
        llm,
        TableRetriever(TABLE),
        [Trajectory("t", Question("q", "Who wrote the book", ("Ada",)))],
        spoken,
        k=2,
        form="query",
        turns=0,
        sampling=Sampling(64),
    )
    return llm, end


def test_search_r1_in_its_evaluation_form() -> None:
    llm, end = play(
        "search-r1",
        "Read. Question: {question}\n",
        [
            " <think> I need it. </think>\n<search> the book </search> gone",
            "<think> Where? </think>\n<search>its town</search>",
            "<think> So. </think>\n<answer> Ada </answer>",
        ],
    )
    first = "Read. Question: Who wrote the book\n"
    second = (
        f"{first}<think> I need it. </think>\n<search> the book </search>\n\n<information>\n"
        'Doc 1(Title: "The Book") It is about bees.\n'
        'Doc 2(Title: "A "quoted" one") First line.\nSecond line.\n'
        "\n</information>\n\n"
    )
    third = (
        f"{second}<think> Where? </think>\n<search>its town</search>\n\n<information>\n"
        'Doc 1(Title: "Ulm") Ulm is a city.\n\n</information>\n\n'
    )
    assert llm.given == [first, second, third]
    assert (end.stop, end.answer) == ("answered", "Ada")


def test_search_r1_spends_its_fifth_call_on_a_search_that_is_shown() -> None:
    llm, end = play("search-r1", "{question}\n", ["<search> its town </search>"] * 9)
    assert (end.stop, len(llm.given), len(end.searches), end.answer) == ("budget", 5, 5, None)
    assert all(turn.observation for turn in end.turns)


def test_search_r1_in_its_training_form() -> None:
    llm, end = play(
        "search-r1-rl",
        "Read. Question: {question}\n",
        [
            " <think> I need it. </think>\n<search> the book </search> gone",
            "no idea",
            "<search> its town </search>",
            "<answer> Ada </answer> and more",
        ],
        invalid="\nThat was wrong. I try again.\n",
    )
    first = "Read. Question: Who wrote the book?\n"
    second = (
        f"{first} <think> I need it. </think>\n<search> the book </search>\n\n<information>"
        'Doc 1(Title: "The Book") It is about bees.\n'
        'Doc 2(Title: "A "quoted" one") First line.\nSecond line.'
        "</information>\n\n"
    )
    third = f"{second}no idea\nThat was wrong. I try again.\n"
    fourth = (
        f"{third}<search> its town </search>\n\n"
        '<information>Doc 1(Title: "Ulm") Ulm is a city.</information>\n\n'
    )
    assert llm.given == [first, second, third, fourth]
    assert [turn.status for turn in end.turns] == ["search", "invalid", "search", "answer"]
    assert (end.stop, end.answer) == ("answered", "Ada")


def test_search_r1_training_has_four_searches_and_a_last_call_that_has_none() -> None:
    llm, end = play("search-r1-rl", "{question}\n", ["<search> its town </search>"] * 9)
    assert (end.stop, len(llm.given), len(end.searches)) == ("budget", 5, 4)
    _, end = play("search-r1-rl", "{question}\n", ["what"] * 9)
    assert (end.stop, len(end.turns), end.turns[-1].observation) == ("invalid", 5, None)


def test_search_r1_training_sends_the_question_with_its_mark() -> None:
    retriever = TableRetriever({}, default=[ULM])
    run_rollout(
        ScriptedLLM(["<search> a </search>", "<answer> b </answer>"]),
        retriever,
        [Trajectory("t", Question("q", " Who ", ("Ada",)))],
        dialect("search-r1-rl"),
        k=1,
        form="question+query",
        turns=0,
        sampling=Sampling(64),
    )
    assert retriever.calls == [["Who? [SEP] a"]]


def test_r1_searcher() -> None:
    llm, end = play(
        "r1-searcher",
        "User:{question}\nAssistant: <think>",
        [
            " I need it. <|begin_of_query|> the book <|end_of_query|> gone",
            "So.</think>\n\n<answer> Ada </answer>",
        ],
    )
    first = "User:Who wrote the book\nAssistant: <think>"
    second = (
        f"{first}I need it. <|begin_of_query|> the book <|end_of_query|>\n\n"
        "<|begin_of_documents|>\n"
        '(1)Title: "The Book" Text: It is about bees.\n'
        '(2)Title: "A "quoted" one" Text: First line.\nSecond line.\n'
        "\n<|end_of_documents|>\n\n"
    )
    assert llm.given == [first, second]
    assert (end.stop, end.answer) == ("answered", "Ada")
    assert (
        len(play("r1-searcher", "{question}", ["<|begin_of_query|>a<|end_of_query|>"] * 9)[0].given)
        == 5
    )


def test_simple_deep_searcher() -> None:
    llm, end = play(
        "simple-deep-searcher",
        "At most {limit}.\n\nQuestion:\n{question}\n\n",
        [
            "I need it. <|begin_search_query|> the book <|end_search_query|>",
            "So it is \\boxed{\\text{Ada {B.}}}. <|begin_search_query|> x <|end_search_query|>",
        ],
    )
    first = "At most 10.\n\nQuestion:\nWho wrote the book\n\n"
    second = (
        f"{first}I need it. <|begin_search_query|> the book <|end_search_query|>\n\n"
        "<|begin_search_result|>\n"
        '(1)Title: "The Book" Text: It is about bees.\n'
        '(2)Title: "A "quoted" one" Text: First line.\nSecond line.\n'
        "\n<|end_search_result|>\n\n"
    )
    assert llm.given == [first, second]
    assert (end.stop, end.answer) == ("answered", "Ada {B.}")
    query = "<|begin_search_query|> its town <|end_search_query|>"
    assert len(play("simple-deep-searcher", "{question}", [query] * 19)[0].given) == 10


def test_autorefine() -> None:
    llm, end = play(
        "autorefine",
        "<user> Question: {question} </user>",
        ["<search> its town </search>", "<refine> Ulm. </refine> <answer> Ada </answer>"],
    )
    first = "<user> Question: Who wrote the book </user>"
    second = (
        f"{first}<search> its town </search>\n\n<documents>\n"
        'Doc 1(Title: "Ulm") Ulm is a city.\n\n</documents>\n\n'
    )
    assert llm.given == [first, second]
    assert end.answer == "Ada"


def test_o2_searcher() -> None:
    found = "<search>\n<query> the book </query>\n<query>its town</query>\n</search>"
    llm, end = play(
        "o2-searcher",
        "=== system ===\nBe right.\n=== user ===\nInitial query: {question}\n",
        ["no idea", f"<think> So. </think>\n{found}", "<answer> Ada </answer>"],
        invalid="Wrong form.",
    )
    first = (Message("system", "Be right."), Message("user", "Initial query: Who wrote the book"))
    second = (*first, Message("assistant", "no idea"), Message("user", "Wrong form."))
    third = (
        *second,
        Message("assistant", f"<think> So. </think>\n{found}"),
        Message(
            "user",
            "Search learnings: <learnings>\n"
            '(1)Title: "The Book" Text: It is about bees.\n'
            '(2)Title: "A "quoted" one" Text: First line.\nSecond line.\n'
            '(3)Title: "Ulm" Text: Ulm is a city.\n</learnings>.',
        ),
    )
    assert llm.given == [Conversation(first), Conversation(second), Conversation(third)]
    assert [search.query for search in end.searches] == ["the book", "its town"]
    assert (end.stop, end.answer) == ("answered", "Ada")


REARAG = (
    "=== system ===\nSteps.\n=== user ===\n{question}\n=== observe ===\n"
    "Context: {context}\n\nQuestion: {query}\n\nAnswer:\n=== shorten ===\n{question} | {answer}\n"
)


def step(number: int, action: str) -> str:
    return f"Thought {number}: I think.\nAction {number}:\n```\n{action}\n```"


def test_rearag() -> None:
    search = step(1, "{'function': 'search', 'parameters': {'query': \"the book\"}}")
    finish = step(2, '{"function": "finish", "parameters": {"answer": "It was Ada."}}')
    llm, end = play(
        "rearag",
        REARAG,
        [
            f"{search}\nObservation 1: made up",
            "It is <|user|>",
            "nothing",
            f"{finish}<|user|>",
            "Ada\n",
        ],
        invalid="No action.",
    )
    first = (Message("system", "Steps."), Message("user", "Who wrote the book"))
    reading = (
        'Context: "The Book"\nIt is about bees.\n\n"A "quoted" one"\nFirst line.\nSecond line.'
        "\n\nQuestion: the book\n\nAnswer:"
    )
    third = (*first, Message("assistant", search), Message("observation", "It is"))
    fourth = (*third, Message("assistant", "nothing"), Message("observation", "No action."))
    assert llm.given == [
        Conversation(first),
        Conversation((Message("user", reading),)),
        Conversation(third),
        Conversation(fourth),
        Conversation((Message("user", "Who wrote the book | It was Ada."),)),
    ]
    assert (end.stop, end.answer) == ("answered", "Ada")


def test_rearag_stops_after_its_steps() -> None:
    action = step(1, '{"function": "search", "parameters": {"query": "its town"}}')
    llm, end = play("rearag", REARAG, [action, "Ulm.", *["hm"] * 40])
    assert (end.stop, len(llm.given), end.turns[-1].status) == ("budget", 16, "spent")
    llm, end = play("rearag", REARAG, [action, "Ulm."] * 40)
    assert (end.stop, len(llm.given), len(end.searches)) == ("budget", 29, 14)


CORAG = (
    "=== query ===\n{chain}\n{question}\n=== answer ===\n{documents}\n{query}\n"
    "=== final ===\n{documents}\n{chain}\n{question}\n"
)


def test_corag() -> None:
    llm, end = play(
        "corag",
        CORAG,
        ["Intermediate query 1: the book", "Bees.\n", '"its town"', "Ulm.", "Ada\nmore"],
        turns=5,
    )
    bees = '"The Book"\nIt is about bees.\n\n"A "quoted" one"\nFirst line.\nSecond line.'
    ulm = '"Ulm"\nUlm is a city.'
    docs = (
        'Doc 0: "The Book"\nIt is about bees.\n\nDoc 1: "A "quoted" one"\nFirst line.\nSecond line.'
        f"\n\nDoc 2: {ulm}"
    )
    one = "Intermediate query 1: the book\nIntermediate answer 1: Bees."
    two = "Intermediate query 2: its town\nIntermediate answer 2: Ulm."
    asked = "Who wrote the book"
    texts = [
        f"Nothing yet\n{asked}",
        f"{bees}\nthe book",
        f"{one}\n{asked}",
        f"{ulm}\nits town",
        f"{docs}\n{one}\n{two}\n{asked}",
    ]
    assert llm.given == [Conversation((Message("user", text),)) for text in texts]
    assert (end.stop, end.answer) == ("answered", "Ada")
    assert len(play("corag", CORAG, ["its town"] * 20)[0].given) == 9


def test_react() -> None:
    llm, end = play(
        "react",
        "Question: {question}\n",
        [
            " I need it.\nAction 1: Search[the book]\nObservation 1: made up",
            " Hm.",
            "Thought 3: So.\nAction 3: Finish[Ada]\nQuestion: another",
        ],
        invalid="No action.\n",
    )
    first = "Question: Who wrote the book\nThought 1:"
    second = (
        f"{first} I need it.\nAction 1: Search[the book]\nObservation 1: "
        '(1) The Book: It is about bees. (2) A "quoted" one: First line. Second line.\n'
        "Thought 2:"
    )
    third = f"{second} Hm.\nObservation 2: No action.\nThought 3:"
    assert llm.given == [first, second, third]
    assert (end.stop, end.answer) == ("answered", "Ada")
    assert DIALECTS["react"]().reasoning(end.turns[0]) == "I need it."  # type: ignore[attr-defined]


def called(text: str, *calls: ToolCall) -> Completion:
    return Completion(text, "calls", calls=calls)


def test_tool_calling() -> None:
    book = ToolCall("search", '{"query": "the book"}', "c1")
    town = ToolCall("search", '{"query":"its town"}')
    odd = ToolCall("open", "{}", "c3")
    broken = ToolCall("search", "the book", "c4")
    llm, end = play(
        "tool-calling",
        "=== system ===\nSearch.\n=== user ===\n{question}\n=== last ===\nAnswer now.\n",
        [called("I look.", book, town, odd), called("", broken), "<think>x</think>\nAda\nSurely."],
        turns=3,
    )
    first = (Message("system", "Search."), Message("user", "Who wrote the book"))
    named = ToolCall("search", town.arguments, "call_0_1")
    second = (
        *first,
        Message("assistant", "I look.", (book, named, odd)),
        Message(
            "tool",
            'Doc 1(Title: "The Book") It is about bees.\n'
            'Doc 2(Title: "A "quoted" one") First line.\nSecond line.',
            call_id="c1",
        ),
        Message("tool", 'Doc 1(Title: "Ulm") Ulm is a city.', call_id="call_0_1"),
        Message("tool", 'There is no such tool; the only one is "search".', call_id="c3"),
    )
    third = (
        *second,
        Message("assistant", "", (broken,)),
        Message("tool", 'The arguments are not JSON; expected {"query": "..."}.', call_id="c4"),
        Message("user", "Answer now."),
    )
    assert llm.given == [Conversation(each, (SEARCH,)) for each in (first, second, third)]
    assert [turn.status for turn in end.turns] == ["search", "invalid", "answer"]
    assert (end.stop, end.answer) == ("answered", "Ada")


def test_tool_calling_ends_where_the_last_call_searches_or_too_many_are_called() -> None:
    call = ToolCall("search", '{"query": "its town"}')
    prompt = "=== system ===\n\n=== user ===\n{question}\n=== last ===\nx"
    _, end = play("tool-calling", prompt, [called("", *[call] * 7), called("", call)], turns=2)
    assert (end.stop, len(end.searches), end.answer) == ("budget", 5, None)
    assert (end.turns[0].observation or "").endswith("at most 5 calls are made at once.")


def test_direct_and_rag() -> None:
    llm, end = play("direct", "Q: {question}\nA:", [" Ada\nQ: more"])
    assert (llm.given, end.answer) == (["Q: Who wrote the book\nA:"], "Ada")
    llm, end = play("rag", "{passages}\nQ: {question}\nA:", ["Ada"])
    assert llm.given == [
        'Doc 1(Title: "Ulm") Ulm is a city.\nDoc 2(Title: "The Book") It is about bees.\n'
        "\nQ: Who wrote the book\nA:"
    ]
    assert [turn.status for turn in end.turns] == ["given", "answer"]
    assert (end.answer, end.searches[0].sent) == ("Ada", "Who wrote the book")


def test_iter_retgen() -> None:
    llm, end = play("iter-retgen", "{passages}Q: {question}\n", ["Ada?", "Bo", "Cy"])
    asked = "Q: Who wrote the book\n"
    assert llm.given == [
        f'Doc 1(Title: "Ulm") Ulm is a city.\nDoc 2(Title: "The Book") It is about bees.\n{asked}',
        f'Doc 1(Title: "The Book") It is about bees.\n{asked}',
        asked,
    ]
    assert [search.query for search in end.searches] == [
        "Who wrote the book", "Who wrote the book Ada?", "Who wrote the book Bo",
    ]  # fmt: skip
    assert (end.stop, end.answer) == ("answered", "Cy")


def test_ircot() -> None:
    llm, end = play(
        "ircot",
        "{passages}Question: {question}\nThought:",
        [" the book\n", " So the answer is: Ada.\n"],
    )
    ulm = "Wikipedia Title: Ulm\nUlm is a city.\n\n"
    bees = "Wikipedia Title: The Book\nIt is about bees.\n\n"
    quoted = 'Wikipedia Title: A "quoted" one\nFirst line.\nSecond line.\n\n'
    asked = "Question: Who wrote the book\nThought:"
    # Scores are 1 and 1/2: the book is first of its search, so it comes to the end.
    assert llm.given == [f"{bees}{ulm}{asked}", f"{quoted}{ulm}{bees}{asked} the book"]
    assert (end.stop, end.answer) == ("answered", "Ada")
    assert play("ircot", "{passages}{question}", ["a\n", "b\n"])[1].stop == "budget"


def test_self_ask() -> None:
    llm, end = play(
        "self-ask",
        "{passages}\nQuestion: {question}\nAre follow up questions needed here: Yes.\n",
        [
            "Follow up: the book\nIntermediate answer: never shown",
            " Bees.\nFollow up: its town\n",
            " Ulm.\nSo the final answer is: Ada.\nQuestion: another",
        ],
    )
    asked = "\nQuestion: Who wrote the book\nAre follow up questions needed here: Yes.\n"
    one = "Follow up: the book\nIntermediate answer:"
    two = f"{one} Bees.\nFollow up: its town\nIntermediate answer:"
    assert llm.given == [
        f"Context1: Ulm is a city.\nContext2: It is about bees.\n{asked}",
        f"Context1: It is about bees.\nContext2: First line. Second line.\n{asked}{one}",
        f"Context1: Ulm is a city.\n{asked}{two}",
    ]
    assert (end.stop, end.answer) == ("answered", "Ada")


def sure(text: str, *odds: float) -> Completion:
    from math import log

    return Completion(text, "eos", logprobs=tuple(log(each) for each in odds))


def test_flare() -> None:
    llm, end = play(
        "flare",
        "{passages}Q: {question}\nA:",
        [
            sure("the book", 0.9, 0.1),
            sure("It has bees. More.", 0.1, 0.9),
            sure("So the answer is: Ada.", 0.9),
        ],
    )
    asked = "Q: Who wrote the book\nA:"
    found = (
        'Doc 1(Title: "The Book") It is about bees.\n'
        'Doc 2(Title: "A "quoted" one") First line.\nSecond line.\n'
    )
    assert llm.given == [asked, f"{found}{asked}", f"{asked} It has bees."]
    assert [turn.status for turn in end.turns] == ["search", "continue", "answer"]
    assert (end.stop, end.answer) == ("answered", "Ada")
    assert all(sampling.tokens for sampling in llm.samplings)


def test_flare_says_what_it_lacks_and_ends() -> None:
    with pytest.raises(LLMError, match="flare needs log-probabilities"):
        play("flare", "{passages}{question}", ["Bees."])
    _, end = play("flare", "{passages}{question}", [sure("Then on. And on.", 0.9)] * 9)
    assert (end.stop, len(end.turns)) == ("budget", 5)


@pytest.mark.parametrize("name", DIALECTS)
def test_the_packaged_prompt_holds_the_question_and_starts_a_rollout(name: str) -> None:
    spoken = dialect(name)
    start = Trajectory("t", Question("q", "Who wrote {question} hives", ("Ada",)))
    prompt = spoken.prompt(start)
    shown = prompt if isinstance(prompt, str) else repr(prompt)
    assert shown.count("Who wrote {question} hives") == 1
    assert spoken.turns >= 1


@pytest.mark.parametrize("name", [n for n, kind in DIALECTS.items() if "chat" not in kind.needs])
def test_a_text_dialect_can_speak_through_a_chat_template(name: str) -> None:
    start = Trajectory("t", Question("q", "Who?", ("Ada",)))
    text = dialect(name).prompt(start)
    chat = dialect(name, chat=True)
    spoken = chat.prompt(start)
    assert isinstance(spoken, Conversation)
    assert "".join(message.content for message in spoken.messages) + spoken.begun == text
    assert {"chat", "begun"} <= chat.needs  # type: ignore[attr-defined]
