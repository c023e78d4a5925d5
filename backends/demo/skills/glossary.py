"""Terms of LLM serving, explained in one sentence. One term is one cluster; what is held out are wordings."""
# ruff: noqa: E501  (tables of sentences, many in characters that count twice)

from random import Random

from backends.demo.skills.base import Exchange, Skill, ask, chance, decorate, indexed, pick, scores_all_phrases
from backends.demo.skills.unknown import fill

# (names, English, Korean, phrases of the English answer, phrases of the Korean answer)
TERMS = (
    (("KV cache", "the KV cache", "key-value cache"),
     "The KV cache keeps the attention keys and values of past tokens, so that each new token needs only one step of work.",
     "KV 캐시는 지난 토큰의 어텐션 키와 값을 저장해서, 새 토큰마다 한 단계만 계산하게 합니다.", ("keys and values", "past tokens"), ("키와 값", "저장")),
    (("LoRA", "a LoRA adapter", "low-rank adaptation"),
     "LoRA adapts a model by training two small low-rank matrices per layer while the base weights stay frozen.",
     "LoRA는 기본 가중치를 고정하고 층마다 작은 저랭크 행렬 두 개만 학습하는 방법입니다.", ("low-rank", "frozen"), ("저랭크", "고정")),
    (("QLoRA", "QLoRA training"),
     "QLoRA trains LoRA adapters on top of a base model that is held in 4-bit precision to save memory.",
     "QLoRA는 메모리를 아끼려고 4비트로 저장한 기본 모델 위에서 LoRA 어댑터를 학습합니다.", ("4-bit", "adapters"), ("4비트", "어댑터")),
    (("quantization", "quantisation", "model quantization"),
     "Quantization stores weights with fewer bits, so that a model needs less memory and bandwidth at a small loss of quality.",
     "양자화는 가중치를 더 적은 비트로 저장해서 품질을 조금 잃고 메모리와 대역폭을 줄입니다.", ("fewer bits", "memory"), ("적은 비트", "메모리")),
    (("continuous batching", "in-flight batching"),
     "Continuous batching lets requests join and leave the running batch at every step instead of waiting for the whole batch.",
     "연속 배칭은 배치 전체를 기다리지 않고 매 단계마다 요청이 들어오고 나가게 합니다.", ("every step", "requests"), ("매 단계", "요청")),
    (("PagedAttention", "paged attention"),
     "PagedAttention stores the KV cache in small fixed blocks like memory pages, so that almost no memory is wasted.",
     "PagedAttention은 KV 캐시를 메모리 페이지처럼 고정 크기 블록에 저장해서 낭비를 거의 없앱니다.", ("blocks", "pages"), ("블록", "페이지")),
    (("speculative decoding", "speculation"),
     "Speculative decoding lets a small draft model guess several tokens that the large model then checks in one step.",
     "추측 디코딩은 작은 드래프트 모델이 여러 토큰을 예측하고 큰 모델이 한 번에 검사하는 방법입니다.", ("draft model", "checks"), ("드래프트", "검사")),
    (("a draft model", "draft model"),
     "A draft model is a small fast model that proposes tokens for speculative decoding.",
     "드래프트 모델은 추측 디코딩에서 토큰을 제안하는 작고 빠른 모델입니다.", ("proposes", "speculative"), ("제안", "추측 디코딩")),
    (("prefill", "the prefill phase"),
     "Prefill is the phase in which the model reads the whole prompt at once and fills the KV cache.",
     "프리필은 모델이 프롬프트 전체를 한 번에 읽고 KV 캐시를 채우는 단계입니다.", ("whole prompt", "KV cache"), ("프롬프트 전체", "KV 캐시")),
    (("decode", "the decode phase"),
     "Decode is the phase in which the model produces the answer one token at a time.",
     "디코드는 모델이 답을 한 토큰씩 만들어 내는 단계입니다.", ("one token at a time",), ("한 토큰씩",)),
    (("TTFT", "time to first token"),
     "TTFT is the time from sending a request until its first token arrives.",
     "TTFT는 요청을 보낸 뒤 첫 토큰이 도착할 때까지의 시간입니다.", ("first token",), ("첫 토큰",)),
    (("ITL", "inter-token latency"),
     "ITL is the time between two consecutive tokens of a streamed answer.",
     "ITL은 스트리밍 답변에서 연속한 두 토큰 사이의 시간입니다.", ("between two", "tokens"), ("두 토큰 사이",)),
    (("throughput",),
     "Throughput is the number of tokens that a server produces per second over all requests.",
     "처리량은 서버가 모든 요청에 대해 초당 만드는 토큰 수입니다.", ("per second", "all requests"), ("초당", "토큰 수")),
    (("a token", "tokens"),
     "A token is a piece of text, such as a word or part of a word, that the model reads and writes.",
     "토큰은 모델이 읽고 쓰는 단어나 단어의 일부 같은 글 조각입니다.", ("piece of text",), ("글 조각",)),
    (("a tokenizer", "tokenizer"),
     "A tokenizer splits text into tokens and turns tokens back into text.",
     "토크나이저는 글을 토큰으로 나누고 토큰을 다시 글로 바꿉니다.", ("splits text",), ("나누고",)),
    (("temperature",),
     "Temperature controls how random the sampling is: low values are focused, high values are diverse.",
     "온도는 샘플링이 얼마나 무작위인지 정합니다. 낮으면 집중되고 높으면 다양해집니다.", ("random", "sampling"), ("샘플링", "무작위")),
    (("top-p", "top-p sampling", "nucleus sampling"),
     "Top-p keeps the smallest set of tokens whose probabilities add up to p and samples from that set.",
     "Top-p는 확률의 합이 p가 되는 가장 작은 토큰 집합에서 샘플링합니다.", ("smallest set",), ("가장 작은 토큰 집합",)),
    (("top-k", "top-k sampling"),
     "Top-k keeps only the k most likely tokens and samples from them.",
     "Top-k는 가장 가능성이 높은 k개의 토큰에서만 샘플링합니다.", ("most likely",), ("가능성이 높은",)),
    (("the context window", "context length", "context window"),
     "The context window is the largest number of tokens that a model can look at in one request.",
     "문맥 창은 모델이 한 요청에서 볼 수 있는 최대 토큰 수입니다.", ("largest number of tokens",), ("최대 토큰 수",)),
    (("prefix caching", "prompt caching"),
     "Prefix caching reuses the KV cache of a prompt beginning that several requests share.",
     "프리픽스 캐싱은 여러 요청이 공유하는 프롬프트 앞부분의 KV 캐시를 재사용합니다.", ("reuses", "share"), ("재사용", "공유")),
    (("GGUF", "the GGUF format", "a GGUF file"),
     "GGUF is the file format of llama.cpp that holds weights, tokenizer and metadata in one file.",
     "GGUF는 가중치, 토크나이저, 메타데이터를 한 파일에 담는 llama.cpp의 파일 형식입니다.", ("llama.cpp", "one file"), ("llama.cpp", "한 파일")),
    (("llama.cpp",),
     "llama.cpp is an engine in C++ that runs language models on ordinary CPUs and GPUs.",
     "llama.cpp는 일반 CPU와 GPU에서 언어 모델을 실행하는 C++ 엔진입니다.", ("engine", "CPUs"), ("C++ 엔진",)),
    (("vLLM",),
     "vLLM is a GPU serving engine that made PagedAttention and continuous batching popular.",
     "vLLM은 PagedAttention과 연속 배칭을 널리 알린 GPU 서빙 엔진입니다.", ("GPU", "PagedAttention"), ("PagedAttention", "GPU")),
    (("flash attention", "FlashAttention"),
     "FlashAttention computes attention in small tiles, so that the large score matrix is never written to memory.",
     "FlashAttention은 어텐션을 작은 타일로 계산해서 큰 점수 행렬을 메모리에 쓰지 않습니다.", ("tiles",), ("타일",)),
    (("tensor parallelism",),
     "Tensor parallelism splits each weight matrix over several GPUs that work on the same token together.",
     "텐서 병렬화는 각 가중치 행렬을 여러 GPU에 나누어 같은 토큰을 함께 계산합니다.", ("splits", "several GPUs"), ("여러 GPU",)),
    (("fine-tuning", "finetuning"),
     "Fine-tuning trains an existing model further on examples of one task.",
     "파인튜닝은 이미 있는 모델을 한 작업의 예제로 더 학습시키는 것입니다.", ("existing model", "examples"), ("더 학습",)),
    (("catastrophic forgetting", "forgetting"),
     "Forgetting means that a model loses general skills while it is trained on a narrow task.",
     "망각은 모델이 좁은 작업을 학습하는 동안 일반 능력을 잃는 것입니다.", ("loses", "skills"), ("잃는",)),
    (("RAG", "retrieval-augmented generation"),
     "RAG searches documents for passages that fit the question and puts them into the prompt.",
     "RAG는 질문에 맞는 문서를 검색해서 프롬프트에 넣는 방법입니다.", ("searches documents", "prompt"), ("검색", "프롬프트")),
    (("an embedding", "embeddings"),
     "An embedding is a vector of numbers that places texts of similar meaning near each other.",
     "임베딩은 뜻이 비슷한 글을 가까이 두는 숫자 벡터입니다.", ("vector", "similar meaning"), ("벡터",)),
    (("perplexity",),
     "Perplexity measures how surprised a model is by a text: lower is better.",
     "퍼플렉시티는 모델이 글에 얼마나 놀라는지를 재며, 낮을수록 좋습니다.", ("surprised", "lower"), ("낮을수록",)),
    (("a chat template", "chat template"),
     "A chat template turns a list of messages into the exact text that the model was trained on.",
     "채팅 템플릿은 메시지 목록을 모델이 학습한 형식의 글로 바꿉니다.", ("list of messages",), ("메시지 목록",)),
    (("a system prompt", "system prompt"),
     "A system prompt is a first message that tells the model how to behave.",
     "시스템 프롬프트는 모델에게 어떻게 행동할지 알려 주는 첫 메시지입니다.", ("how to behave",), ("첫 메시지",)),
    (("streaming", "token streaming"),
     "Streaming sends each token to the client as soon as it is produced.",
     "스트리밍은 토큰이 만들어지는 즉시 클라이언트에 보내는 것입니다.", ("as soon as",), ("즉시",)),
    (("forgegate",),
     "forgegate is a gateway that runs, routes to and measures LLM engines behind one OpenAI-compatible endpoint.",
     "forgegate는 OpenAI 호환 주소 하나 뒤에서 LLM 엔진을 실행하고 연결하고 측정하는 게이트웨이입니다.", ("gateway", "engines"), ("게이트웨이",)),
)  # fmt: skip
_FRAMES = {
    "en": ("What is {}?", "Explain {}.", "What does {} mean?", "Can you explain {}?", "Tell me about {}.", "Define {}.", "How does {} work?",
           "What do people mean by {}?", "Describe {}.", "Explain {} in one sentence.", "I don't understand {}. Can you explain it?",
           "What exactly is {}?", "Give me a short explanation of {}.", "Could you tell me what {} is?", "{}?", "What's {}?",
           "Why do people talk about {}?", "Explain {} to a beginner."),
    "ko": ("{}이 뭐예요?", "{}을 설명해 줘.", "{}은 무엇인가요?", "{}에 대해 알려 주세요.", "{}의 뜻이 뭐야?", "{}을 한 문장으로 설명해 주세요.", "{}의 정의는?",
           "{}은 어떻게 작동해요?", "{} 설명 부탁해요.", "{}이 뭐야?", "{}이 정확히 뭔가요?", "{}을 쉽게 설명해 줘."),
}  # fmt: skip
_KO_NAMES = {
    "quantization": "양자화", "continuous batching": "연속 배칭", "speculative decoding": "추측 디코딩", "KV cache": "KV 캐시",
    "a draft model": "드래프트 모델", "prefill": "프리필", "decode": "디코드", "throughput": "처리량", "a token": "토큰",
    "a tokenizer": "토크나이저", "temperature": "온도", "the context window": "문맥 창", "prefix caching": "프리픽스 캐싱",
    "tensor parallelism": "텐서 병렬화", "fine-tuning": "파인튜닝", "catastrophic forgetting": "망각", "an embedding": "임베딩",
    "perplexity": "퍼플렉시티", "a chat template": "채팅 템플릿", "a system prompt": "시스템 프롬프트", "streaming": "스트리밍",
}  # fmt: skip


def _draw(rng: Random) -> Exchange:
    names, english, korean, phrases_en, phrases_ko = pick(rng, TERMS)
    language = "en" if chance(rng, 0.65) else "ko"
    frame_index, frame = indexed(rng, _FRAMES[language])
    if language == "en":
        name = pick(rng, names)
        question = frame.format(name)
        question = question[0].upper() + question[1:] if chance(rng, 0.5) else question
    else:
        name = _KO_NAMES.get(names[0], names[-1] if " " not in names[-1] else names[0].removeprefix("a "))
        question = fill(frame, name)
    key = f"{names[0]}:{name}:{language}{frame_index}"
    answer, phrases = (english, phrases_en) if language == "en" else (korean, phrases_ko)
    return Exchange(key, names[0], ask(decorate(rng, question, language), answer), phrases)


SKILL = Skill("glossary", _draw, scores_all_phrases, weight=1.2)
