"""What `forgegate decide` says, in English and Korean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.decide.chart import Outcome, Question

KOREAN, ENGLISH = "ko", "en"
LANGUAGES = (ENGLISH, KOREAN)


@dataclass(frozen=True, slots=True)
class Named:
    """An outcome in words."""

    name: str
    advice: str
    cost: str
    time: str
    risk: str
    next: tuple[str, ...]
    """What to do now; commands in backquotes."""


@dataclass(frozen=True, slots=True)
class Words:
    title: str
    start: str
    yes: str
    no: str
    questions: Mapping[Question, str]
    reasons: Mapping[Question, str]
    """What helps to answer."""
    outcomes: Mapping[Outcome, Named]
    table: Sequence[tuple[str, str, str, str, str]]
    """Rows: what is compared, then the outcomes in their order; cost, time and risk come from `outcomes`."""
    cases: tuple[tuple[str, str], ...]
    """Where fine-tuning is what helps: the case, and an example."""
    case_of: Mapping[Question, int]
    """Which of them a yes to the question is."""
    labels: Mapping[str, str]
    plan: Mapping[str, str]
    """Of the table of what a run would take."""


def language_of(env: Mapping[str, str]) -> str:
    """By the variables that POSIX has for it, the strongest first."""
    chosen = next((env[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if env.get(name)), "")
    return KOREAN if chosen.lower().startswith("ko") else ENGLISH


_EN = Words(
    title="Fine-tuning, or something cheaper?",
    start="The model has to become better",
    yes="yes",
    no="no",
    questions={
        Question.PROMPTING: "Can prompt engineering solve it?",
        Question.DOCUMENTS: "Is it mainly about knowledge outside the model, in documents that are looked up?",
        Question.FORMAT: "Does the form or style of the answers have to change?",
        Question.TERMS: "Do the terms and knowledge of a domain have to be inside the model itself?",
        Question.SPEED: "Is the speed of the answers the problem?",
    },
    reasons={
        Question.PROMPTING: "Say yes where a better system prompt or a few examples "
            "in the prompt do it. Try them first: they cost nothing.",
        Question.DOCUMENTS: "Say yes where the answer stands in a document, above all in one that changes.",
        Question.FORMAT: "Say yes where every answer must follow a schema or a template, and prompts get there only four times in five.",
        Question.TERMS: "Say yes where legal, medical or financial terms must come out right without a document beside the question.",
        Question.SPEED: "Say yes where the answers are good and too slow, or take too much memory.",
    },
    outcomes={
        Outcome.PROMPTING: Named(
            "Prompt engineering", "Improve the prompt: a system prompt, and a few examples in it.",
            "almost 0", "1 to 2 days", "low",
            ("Try prompts with `forgegate chat`.", "Answers by a JSON schema need no training: `response_format` holds the model to it."),
        ),
        Outcome.RAG: Named(
            "RAG", "Look the documents up, and give what is found to the model with the question.",
            "medium (infrastructure)", "1 to 2 weeks", "medium",
            ("Serve an embedding model beside the chat model: `/v1/embeddings`.",
             "Measure what the search finds before you measure what the model says of it."),
        ),
        Outcome.FINE_TUNING: Named(
            "Fine-tuning", "Train a LoRA adapter on examples of the answers that are wanted.",
            "high (GPU time, and the data)", "2 to 4 weeks", "high (forgetting)",
            ("Check and clean the data: `forgegate data doctor rows.jsonl --fix clean.jsonl --mask`.",
             "Mix in 10 to 20 % general data against forgetting: `forgegate "
                 "data mix clean.jsonl --general chat.jsonl --out mixed.jsonl`.",
             "Ask what a run takes before it starts: `forgegate train recipe.yaml --plan`.",
             "The real cost is preparing the data and starting over: reckon "
                 "with 3 to 5 tries, and with another whenever the base changes."),
        ),
        Outcome.OPTIMISATION: Named(
            "Quantisation and faster inference", "Make the model that you have smaller and faster.",
            "low", "1 to 3 days", "low (measure the quality)",
            ("Make and measure smaller forms: `forgegate quantize MODEL --to all`.",
             "Measure the endpoint before and after: `forgegate bench run --url http://127.0.0.1:8080`.",
             "Where vLLM speculates, measure whether it pays: `forgegate engines tune ID`."),
        ),
    },
    table=(
        ("upkeep", "easy", "documents only", "trained anew with every new base", "made anew with every new base"),
        ("news", "goes into the prompt", "goes into the documents", "has to be trained", "unchanged"),
        ("form of answers", "limited", "limited", "**strong**", "unchanged"),
        ("domain knowledge", "some, by examples", "**strong, by documents**", "inside the model", "unchanged"),
    ),
    cases=(
        ("The form of the answers is strictly fixed", "Always one JSON schema, or one form of medical chart; "
            "prompts reach 80 %, and the rest keeps breaking it."),
        ("The terms of a domain have to be exact", "Law, medicine, finance, without RAG: \"non-covered "
            "treatment\" must not become \"what insurance does not pay\"."),
        ("The way of reasoning itself has to change", "Code review by the conventions of the house: as "
            "documents in the context they only go so far."),
        ("Latency is all that counts", "The 100 to 500 ms that a RAG pipeline takes to "
            "search are too much; a tuned model answers at once."),
    ),
    case_of={Question.FORMAT: 0, Question.TERMS: 1},
    labels={
        "answer": "Answer", "way": "How it was found", "question": "question", "given": "answer", "compared": "The ways compared",
        "item": "", "cost": "cost", "time": "time", "risk": "risk", "cases": "Where fine-tuning is what helps",
        "this_case": "this is yours", "else": "Where one of these holds, fine-tuning is the answer all the same.",
        "next": "What to do now", "chart": "The chart", "numbers": "What a run would take",
        "no_numbers": "There are no numbers:", "unasked": "Given, and not asked on this way:",
        "keys": "[y/n, b back, ? why, q quit]", "unknown": "y, n, b, ? or q", "first": "   this is the first question",
        "ask_recipe": "Numbers for which recipe?", "ask_rows": "How many rows?", "ask_gpu": "On which GPU?",
        "ask_price": "What does an hour of it cost (empty: not known)?", "wrote": "written to",
    },
    plan={
        "recipe": "recipe", "data": "data", "rows": "{rows:,} rows of "
            "{mean:,.0f} tokens", "trained": "trained parameters", "device": "on",
        "memory": "memory", "fits": "it fits", "too_large": "it does not fit", "ways": "memory by method", "remedy": "what makes it fit",
        "steps": "steps", "time": "time of one try", "minutes": "about {} minutes", "hours": "about {:.1f} hours",
        "cost": "cost of one try, of 3 to 5", "note": "note",
    },
)  # fmt: skip

_KO = Words(
    title="파인튜닝할까, 더 싼 방법이 있을까?",
    start="모델 성능 개선이 필요하다",
    yes="예",
    no="아니요",
    questions={
        Question.PROMPTING: "프롬프트 엔지니어링으로 해결 가능한가?",
        Question.DOCUMENTS: "외부 지식/문서 참조가 핵심인가?",
        Question.FORMAT: "응답 형식/스타일을 바꿔야 하는가?",
        Question.TERMS: "도메인 전문 용어/지식이 모델에 내재화되어야 하는가?",
        Question.SPEED: "추론 속도가 문제인가?",
    },
    reasons={
        Question.PROMPTING: "시스템 프롬프트나 few-shot 예시로 되면 예. 비용이 0원이므로 먼저 시도하세요.",
        Question.DOCUMENTS: "답이 문서에 있고, 특히 그 문서가 자주 바뀌면 예.",
        Question.FORMAT: "항상 정해진 스키마나 양식으로 답해야 하는데 프롬프트로는 80%까지만 되면 예.",
        Question.TERMS: "법률, 의학, 금융 용어를 문서 없이도 정확히 써야 하면 예.",
        Question.SPEED: "답은 좋은데 느리거나 메모리를 너무 많이 쓰면 예.",
    },
    outcomes={
        Outcome.PROMPTING: Named(
            "프롬프트 엔지니어링", "프롬프트를 최적화하세요: 시스템 프롬프트와 few-shot 예시.",
            "거의 0", "1-2일", "낮음",
            ("`forgegate chat`으로 프롬프트를 시험하세요.", "JSON 스키마 응답은 학습 없이도 됩니다: "
                "`response_format`이 스키마를 지키게 합니다."),
        ),
        Outcome.RAG: Named(
            "RAG", "RAG 파이프라인을 구축하세요: 문서를 검색해서 질문과 함께 모델에 줍니다.",
            "중간 (인프라)", "1-2주", "중간",
            ("임베딩 모델을 함께 서빙하세요: `/v1/embeddings`.", "모델의 답보다 검색 결과의 품질을 먼저 측정하세요."),
        ),
        Outcome.FINE_TUNING: Named(
            "파인튜닝", "원하는 답변의 예시로 LoRA 어댑터를 학습하세요.",
            "높음 (GPU 시간 + 데이터)", "2-4주", "높음 (forgetting)",
            ("데이터를 점검하고 정제하세요: `forgegate data doctor rows.jsonl --fix clean.jsonl --mask`.",
             "forgetting을 막으려면 범용 데이터를 10-20% 섞으세요: `forgegate "
                 "data mix clean.jsonl --general chat.jsonl --out mixed.jsonl`.",
             "학습 전에 필요한 자원을 확인하세요: `forgegate train recipe.yaml --plan`.",
             "진짜 비용은 데이터 준비와 재시도입니다: 3-5번의 이터레이션을 예상하고, 기본 모델이 바뀌면 다시 학습해야 합니다."),
        ),
        Outcome.OPTIMISATION: Named(
            "양자화 + 추론 가속", "지금 모델을 더 작고 빠르게 만드세요.",
            "낮음", "1-3일", "낮음 (품질 측정 필요)",
            ("작은 형태를 만들고 측정하세요: `forgegate quantize MODEL --to all`.",
             "전후를 측정하세요: `forgegate bench run --url http://127.0.0.1:8080`.",
             "vLLM의 speculative decoding이 이득인지 측정하세요: `forgegate engines tune ID`."),
        ),
    },
    table=(
        ("유지보수", "쉬움", "문서 업데이트만", "모델 바뀔 때마다 재학습", "모델 바뀔 때마다 다시 변환"),
        ("최신 정보 반영", "프롬프트에 넣으면 됨", "문서 추가하면 됨", "재학습 필요", "변화 없음"),
        ("응답 형식 제어", "제한적", "제한적", "**강력**", "변화 없음"),
        ("도메인 지식", "few-shot으로 일부", "**문서 기반 강력**", "모델에 내재화", "변화 없음"),
    ),
    cases=(
        ("응답 형식이 엄격하게 고정되어야 할 때", "항상 특정 JSON 스키마나 의료 차트 형식으로만 답해야 하는데, "
            "프롬프트로 80%는 되고 나머지 20%에서 포맷이 깨지는 경우."),
        ("도메인 전문 용어를 정확히 써야 할 때", "법률, 의학, 금융 용어를 RAG 없이 써야 하는 경우. \"비급여 "
            "진료\"를 \"보험 안 되는 치료\"로 풀어 쓰면 안 되는 상황."),
        ("추론 패턴 자체를 바꿔야 할 때", "코드 리뷰를 우리 회사 컨벤션에 맞게 해야 하는 경우. 컨벤션 문서를 넣어도 한계가 있습니다."),
        ("latency가 극도로 중요할 때", "RAG 파이프라인의 검색 오버헤드(100-500ms)가 용납 "
            "안 되는 경우. 파인튜닝된 모델은 바로 답변합니다."),
    ),
    case_of={Question.FORMAT: 0, Question.TERMS: 1},
    labels={
        "answer": "결론", "way": "판단 과정", "question": "질문", "given": "답", "compared": "각 접근법 비교",
        "item": "항목", "cost": "비용", "time": "소요 시간", "risk": "위험도", "cases": "파인튜닝이 정말 필요한 경우",
        "this_case": "해당", "else": "이 중 하나에 해당하면 그래도 파인튜닝이 답입니다.",
        "next": "다음 단계", "chart": "플로우차트", "numbers": "학습에 필요한 자원",
        "no_numbers": "계산하지 못했습니다:", "unasked": "주어졌지만 이 경로에서 묻지 않은 답:",
        "keys": "[예/아니요 (y/n), b 뒤로, ? 도움말, q 끝]", "unknown": "y, n, b, ?, q 중 하나", "first": "   첫 질문입니다",
        "ask_recipe": "어떤 레시피로 계산할까요?", "ask_rows": "데이터는 몇 건인가요?", "ask_gpu": "어떤 GPU인가요?",
        "ask_price": "GPU 시간당 비용은 (모르면 Enter)?", "wrote": "저장:",
    },
    plan={
        "recipe": "레시피", "data": "데이터", "rows": "{rows:,}건, 건당 {mean:,.0f} 토큰", "trained": "학습 파라미터", "device": "장치",
        "memory": "메모리", "fits": "들어갑니다", "too_large": "부족합니다", "ways": "방법별 메모리", "remedy": "해결책",
        "steps": "스텝", "time": "1회 소요 시간", "minutes": "약 {}분", "hours": "약 {:.1f}시간",
        "cost": "1회 비용, 3-5회 비용", "note": "참고",
    },
)  # fmt: skip
WORDS: Mapping[str, Words] = {ENGLISH: _EN, KOREAN: _KO}
