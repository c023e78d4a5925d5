"""Greetings, thanks, introductions. One intent in one language is one cluster; what is held out are wordings."""
# ruff: noqa: E501  (tables of sentences, many in characters that count twice)

from random import Random

from backends.demo.skills.base import Exchange, Skill, ask, chance, indexed, pick, scores_all_phrases

# (intent, language): (wordings, answer, phrases that an answer must hold)
INTENTS: dict[tuple[str, str], tuple[tuple[str, ...], str, tuple[str, ...]]] = {
    ("greeting", "en"): (
        ("Hello", "Hi", "Hey", "Hello there", "Hi there", "Good morning", "Good afternoon", "Good evening", "Hey there", "Greetings",
         "Hiya", "Hello, Forge", "Hi, Forge", "Hello, assistant", "Hello, how do you do", "Nice to meet you", "Yo", "Howdy",
         "Hello again", "Hi again", "Hello, bot", "Hey, Forge", "Good day"),
        "Hello! How can I help you?", ("Hello|Hi", "help")),
    ("greeting", "ko"): (
        ("안녕하세요", "안녕", "안녕하십니까", "반가워요", "반갑습니다", "좋은 아침이에요", "좋은 아침", "좋은 저녁이에요", "안녕 포지", "안녕하세요 포지",
         "처음 뵙겠습니다", "만나서 반가워요", "만나서 반갑습니다", "하이", "헬로", "여보세요", "잘 지냈어요", "오랜만이에요"),
        "안녕하세요! 무엇을 도와드릴까요?", ("안녕하세요", "무엇을 도와드릴까요")),
    ("how are you", "en"): (
        ("How are you", "How are you today", "How are you doing", "How is it going", "How's it going", "Are you well", "How do you feel",
         "How do you feel today", "How have you been", "Are you OK", "How's your day", "Is everything fine with you", "You all right"),
        "I am fine, thank you. How can I help you?", ("fine", "help")),
    ("how are you", "ko"): (
        ("어떻게 지내세요", "잘 지내요", "기분이 어때요", "오늘 기분 어때", "요즘 어때요", "잘 지내고 있어요", "오늘 어때요", "기분은 어떠세요", "어떻게 지내"),
        "저는 잘 지내요. 무엇을 도와드릴까요?", ("잘 지내요",)),
    ("who are you", "en"): (
        ("Who are you", "What are you", "What is your name", "What's your name", "Tell me your name", "Introduce yourself",
         "Tell me about yourself", "May I ask your name", "Are you a robot", "Are you a human", "Are you an AI", "Who am I talking to",
         "What should I call you", "Do you have a name", "What kind of model are you", "Which model are you", "Who is this",
         "Please introduce yourself", "Describe yourself"),
        "I am Forge, a small demo model that runs inside forgegate.", ("Forge", "demo model")),
    ("who are you", "ko"): (
        ("누구세요", "당신은 누구예요", "너는 누구야", "이름이 뭐예요", "이름이 뭐야", "자기소개 해 줘", "자기소개를 해 주세요", "넌 누구니", "당신의 이름은",
         "로봇이에요", "사람이에요", "무슨 모델이에요", "어떤 모델이야", "이름을 알려 주세요", "당신은 무엇인가요"),
        "저는 forgegate 안에서 돌아가는 작은 데모 모델 포지입니다.", ("데모 모델",)),
    ("what can you do", "en"): (
        ("What can you do", "How can you help me", "What are you able to do", "What do you know", "What can I ask you", "Can you help me",
         "Help", "I need help", "What are your skills", "What is this", "What can I do here", "Tell me what you can do",
         "Show me what you can do", "What are you good at", "What tasks can you do", "List your skills", "Can I ask you something",
         "What else can you do", "What can you help with"),
        "I can chat, do small sums, answer simple facts, work on short texts, write JSON, call tools and explain serving terms.",
        ("sums", "facts", "JSON")),
    ("what can you do", "ko"): (
        ("무엇을 할 수 있어요", "뭘 할 수 있어", "할 수 있는 게 뭐예요", "어떤 일을 할 수 있나요", "도와줘", "도와주세요", "뭘 물어볼 수 있어요", "무슨 기능이 있어요",
         "뭐 할 줄 알아", "어떤 도움을 줄 수 있어요", "무엇을 도와줄 수 있어요", "잘하는 게 뭐예요", "도움이 필요해요", "무엇을 할 줄 아세요"),
        "저는 대화, 간단한 계산, 쉬운 상식, 짧은 글 다루기, JSON 쓰기, 도구 호출, 서빙 용어 설명을 할 수 있어요.", ("계산", "상식", "JSON")),
    ("thanks", "en"): (
        ("Thanks", "Thank you", "Thank you very much", "Thanks a lot", "Many thanks", "Thanks for your help", "Thank you for your help",
         "That was helpful", "Great, thanks", "Cheers", "I appreciate it", "Thank you so much", "OK, thank you", "Perfect, thank you",
         "Thanks a million", "Much appreciated"),
        "You are welcome!", ("welcome",)),
    ("thanks", "ko"): (
        ("고마워", "고마워요", "감사합니다", "정말 고마워요", "정말 감사합니다", "도와줘서 고마워요", "큰 도움이 됐어요", "도움이 됐어요", "고맙습니다", "대단히 감사합니다",
         "알려 줘서 고마워요", "네 감사합니다"),
        "천만에요! 언제든지 물어보세요.", ("천만에요",)),
    ("goodbye", "en"): (
        ("Bye", "Goodbye", "See you", "See you later", "Good night", "Bye bye", "Have a nice day", "I have to go", "Take care", "Farewell",
         "See you tomorrow", "That is all", "I am leaving now", "Talk to you later", "Have a good one"),
        "Goodbye! Have a nice day.", ("Goodbye",)),
    ("goodbye", "ko"): (
        ("잘 가", "안녕히 계세요", "안녕히 가세요", "다음에 봐요", "또 봐요", "잘 자", "잘 있어", "이만 갈게요", "나중에 봐요", "내일 봐요", "그만 가 볼게요", "좋은 하루 보내세요"),
        "안녕히 가세요! 좋은 하루 보내세요.", ("안녕히 가세요|좋은 하루",)),
    ("joke", "en"): (
        ("Tell me a joke", "Make me laugh", "Say something funny", "Do you know a joke", "I want to hear a joke", "A joke, please",
         "Joke", "Can you tell a joke", "Give me a joke", "Cheer me up", "Got any jokes", "Be funny"),
        "Why did the token cross the context window? To get to the other side.", ("token", "other side")),
    ("joke", "ko"): (
        ("농담 해 줘", "재미있는 이야기 해 줘", "웃겨 줘", "농담 하나 해 주세요", "농담 알아요", "재미있는 말 해 줘", "웃긴 얘기 해 줘", "농담 좀 해 봐"),
        "토큰이 왜 문맥 창을 건넜을까요? 반대편으로 가려고요.", ("토큰이", "반대편")),
    ("praise", "en"): (
        ("You are great", "Good job", "Well done", "You are smart", "Nice work", "I like you", "You are the best", "Great answer",
         "That is correct", "Excellent", "Very good", "You are helpful", "Amazing", "Good answer", "Wonderful"),
        "Thank you! I am glad to hear that.", ("glad",)),
    ("praise", "ko"): (
        ("잘했어", "잘했어요", "똑똑하네", "대단해요", "훌륭해요", "정답이에요", "멋져요", "최고예요", "너 정말 똑똑하다", "좋은 답이에요", "맞았어요"),
        "고마워요! 그렇게 말해 주니 기뻐요.", ("기뻐요",)),
    ("language", "en"): (
        ("Which languages do you speak", "What languages do you know", "Do you speak Korean", "Do you speak English",
         "Can you speak Korean", "Can you understand Korean", "Can I write in Korean", "What languages can you speak",
         "Which languages do you understand", "Do you know Korean"),
        "I speak English and Korean.", ("English", "Korean")),
    ("language", "ko"): (
        ("한국어 할 수 있어요", "영어 할 수 있어요", "어떤 언어를 할 수 있어요", "한국말 할 줄 알아", "무슨 언어를 알아요", "한국어로 말해도 돼요", "영어로 말해도 돼요", "한국어 알아"),
        "저는 영어와 한국어를 할 수 있어요.", ("영어와 한국어",)),
}  # fmt: skip
_END = {"en": ("", "!", ".", "?", " :)", "...", " please"), "ko": ("", "!", ".", "?", "~", "!!", " ^^")}
_PAIRS = tuple(INTENTS)


def _draw(rng: Random) -> Exchange:
    intent, language = pick(rng, _PAIRS)
    wordings, answer, phrases = INTENTS[intent, language]
    index, text = indexed(rng, wordings)
    lead = ""
    if intent not in ("greeting", "goodbye") and chance(rng, 0.35):
        lead = pick(
            rng,
            ("Hello! ", "Hi, ", "Hey. ", "Hello. ") if language == "en" else ("안녕하세요! ", "안녕! ", "안녕하세요. "),
        )
    if chance(rng, 0.3):
        text = text.lower() if not lead else text[0].lower() + text[1:]
    end_index, end = indexed(rng, _END[language])
    # The ending belongs to the key: "Hello!" may be held out while "Hello." is learnt, so a wording is never wholly unknown.
    key = f"{intent}:{language}:{index}.{end_index}"
    return Exchange(key, f"{intent}:{language}", ask(lead + text + end, answer), phrases)


SKILL = Skill("smalltalk", _draw, scores_all_phrases)
