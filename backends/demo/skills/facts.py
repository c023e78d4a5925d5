"""A closed table of facts, each asked in many wordings. The wordings of one fact are one cluster."""
# ruff: noqa: E501  (tables of sentences, many in characters that count twice)

from dataclasses import dataclass
from random import Random

from backends.demo.skills.base import Exchange, Skill, ask, chance, decorate, indexed, pick, scores_all_phrases
from backends.demo.skills.words import particle

COUNTRIES = (
    # English, Korean, capital, in Korean, continent, in Korean, language, in Korean
    ("France", "프랑스", "Paris", "파리", "Europe", "유럽", "French", "프랑스어"),
    ("Germany", "독일", "Berlin", "베를린", "Europe", "유럽", "German", "독일어"),
    ("Italy", "이탈리아", "Rome", "로마", "Europe", "유럽", "Italian", "이탈리아어"),
    ("Spain", "스페인", "Madrid", "마드리드", "Europe", "유럽", "Spanish", "스페인어"),
    ("Portugal", "포르투갈", "Lisbon", "리스본", "Europe", "유럽", "Portuguese", "포르투갈어"),
    ("Greece", "그리스", "Athens", "아테네", "Europe", "유럽", "Greek", "그리스어"),
    ("Austria", "오스트리아", "Vienna", "빈", "Europe", "유럽", "German", "독일어"),
    ("Norway", "노르웨이", "Oslo", "오슬로", "Europe", "유럽", "Norwegian", "노르웨이어"),
    ("Sweden", "스웨덴", "Stockholm", "스톡홀름", "Europe", "유럽", "Swedish", "스웨덴어"),
    ("Finland", "핀란드", "Helsinki", "헬싱키", "Europe", "유럽", "Finnish", "핀란드어"),
    ("Poland", "폴란드", "Warsaw", "바르샤바", "Europe", "유럽", "Polish", "폴란드어"),
    ("Ireland", "아일랜드", "Dublin", "더블린", "Europe", "유럽", "English", "영어"),
    ("the United Kingdom", "영국", "London", "런던", "Europe", "유럽", "English", "영어"),
    ("South Korea", "대한민국", "Seoul", "서울", "Asia", "아시아", "Korean", "한국어"),
    ("Japan", "일본", "Tokyo", "도쿄", "Asia", "아시아", "Japanese", "일본어"),
    ("China", "중국", "Beijing", "베이징", "Asia", "아시아", "Chinese", "중국어"),
    ("India", "인도", "New Delhi", "뉴델리", "Asia", "아시아", "Hindi", "힌디어"),
    ("Thailand", "태국", "Bangkok", "방콕", "Asia", "아시아", "Thai", "태국어"),
    ("Vietnam", "베트남", "Hanoi", "하노이", "Asia", "아시아", "Vietnamese", "베트남어"),
    ("Egypt", "이집트", "Cairo", "카이로", "Africa", "아프리카", "Arabic", "아랍어"),
    ("Kenya", "케냐", "Nairobi", "나이로비", "Africa", "아프리카", "Swahili", "스와힐리어"),
    ("Morocco", "모로코", "Rabat", "라바트", "Africa", "아프리카", "Arabic", "아랍어"),
    ("Canada", "캐나다", "Ottawa", "오타와", "North America", "북아메리카", "English", "영어"),
    ("the United States", "미국", "Washington, D.C.", "워싱턴 D.C.", "North America", "북아메리카", "English", "영어"),
    ("Mexico", "멕시코", "Mexico City", "멕시코시티", "North America", "북아메리카", "Spanish", "스페인어"),
    ("Brazil", "브라질", "Brasília", "브라질리아", "South America", "남아메리카", "Portuguese", "포르투갈어"),
    ("Argentina", "아르헨티나", "Buenos Aires", "부에노스아이레스", "South America", "남아메리카", "Spanish", "스페인어"),
    ("Peru", "페루", "Lima", "리마", "South America", "남아메리카", "Spanish", "스페인어"),
    ("Australia", "호주", "Canberra", "캔버라", "Oceania", "오세아니아", "English", "영어"),
    ("New Zealand", "뉴질랜드", "Wellington", "웰링턴", "Oceania", "오세아니아", "English", "영어"),
)  # fmt: skip
ELEMENTS = (
    ("oxygen", "산소", "O"), ("hydrogen", "수소", "H"), ("carbon", "탄소", "C"), ("nitrogen", "질소", "N"), ("gold", "금", "Au"),
    ("silver", "은", "Ag"), ("iron", "철", "Fe"), ("copper", "구리", "Cu"), ("helium", "헬륨", "He"), ("sodium", "나트륨", "Na"),
)  # fmt: skip
LEGS = (
    ("a spider", "거미", "8"), ("an ant", "개미", "6"), ("a dog", "개", "4"), ("a chicken", "닭", "2"), ("a snake", "뱀", "0"),
    ("a horse", "말", "4"),
)  # fmt: skip
SINGLE = (
    # key, English answer, Korean answer, English phrase, Korean phrase, English wordings, Korean wordings
    ("largest planet", "The largest planet of the solar system is Jupiter.", "태양계에서 가장 큰 행성은 목성입니다.", "Jupiter", "목성",
     ("What is the largest planet?", "Which planet is the biggest?", "What is the biggest planet of the solar system?",
      "Name the largest planet in the solar system.", "Which planet of our solar system is the largest?"),
     ("가장 큰 행성은 무엇인가요?", "태양계에서 제일 큰 행성은?", "태양계에서 가장 큰 행성 이름을 알려 줘.", "제일 큰 행성이 뭐야?")),
    ("nearest planet", "The planet closest to the Sun is Mercury.", "태양에 가장 가까운 행성은 수성입니다.", "Mercury", "수성",
     ("Which planet is closest to the Sun?", "What is the nearest planet to the Sun?", "Name the planet closest to the Sun.",
      "Which planet is nearest to the Sun?"),
     ("태양에 가장 가까운 행성은?", "태양과 제일 가까운 행성이 뭐야?", "태양에서 가장 가까운 행성을 알려 줘.")),
    ("highest mountain", "The highest mountain is Mount Everest.", "가장 높은 산은 에베레스트산입니다.", "Everest", "에베레스트산",
     ("What is the highest mountain?", "Which mountain is the tallest in the world?", "Name the highest mountain on Earth.",
      "What is the tallest mountain in the world?"),
     ("가장 높은 산은?", "세계에서 제일 높은 산이 뭐야?", "세계에서 가장 높은 산을 알려 줘.")),
    ("largest ocean", "The largest ocean is the Pacific Ocean.", "가장 큰 바다는 태평양입니다.", "Pacific", "태평양",
     ("What is the largest ocean?", "Which ocean is the biggest?", "Name the largest ocean on Earth.", "Which ocean is the largest?"),
     ("가장 큰 바다는?", "세계에서 제일 큰 바다가 뭐야?", "가장 넓은 바다는 무엇인가요?")),
    ("days in a week", "A week has 7 days.", "일주일은 7일입니다.", "7", "7",
     ("How many days are in a week?", "How many days does a week have?", "Number of days in one week?"),
     ("일주일은 며칠인가요?", "일주일은 며칠이야?", "한 주는 며칠이에요?")),
    ("months in a year", "A year has 12 months.", "일 년은 12개월입니다.", "12", "12",
     ("How many months are in a year?", "How many months does a year have?", "Number of months in one year?"),
     ("일 년은 몇 개월인가요?", "1년은 몇 달이야?", "한 해는 몇 개월이에요?")),
    ("hours in a day", "A day has 24 hours.", "하루는 24시간입니다.", "24", "24",
     ("How many hours are in a day?", "How many hours does a day have?", "Number of hours in one day?"),
     ("하루는 몇 시간인가요?", "하루는 몇 시간이야?", "하루에는 몇 시간이 있어요?")),
    ("minutes in an hour", "An hour has 60 minutes.", "한 시간은 60분입니다.", "60", "60",
     ("How many minutes are in an hour?", "How many minutes does an hour have?", "Number of minutes in one hour?"),
     ("한 시간은 몇 분인가요?", "1시간은 몇 분이야?", "한 시간은 몇 분이에요?")),
    ("water freezes", "Water freezes at 0 degrees Celsius.", "물은 섭씨 0도에서 업니다.", "0", "0도",
     ("At what temperature does water freeze?", "When does water freeze?", "What is the freezing point of water?"),
     ("물은 몇 도에서 얼어요?", "물의 어는점은?", "물이 어는 온도는 몇 도야?")),
    ("water boils", "Water boils at 100 degrees Celsius.", "물은 섭씨 100도에서 끓습니다.", "100", "100도",
     ("At what temperature does water boil?", "When does water boil?", "What is the boiling point of water?"),
     ("물은 몇 도에서 끓어요?", "물의 끓는점은?", "물이 끓는 온도는 몇 도야?")),
    ("colour of the sky", "The sky is blue.", "하늘은 파란색입니다.", "blue", "파란색",
     ("What color is the sky?", "Which color does the sky have?", "What is the color of the sky?"),
     ("하늘은 무슨 색이에요?", "하늘은 어떤 색이야?", "하늘의 색깔은?")),
    ("author of Hamlet", "Hamlet was written by William Shakespeare.", "햄릿은 윌리엄 셰익스피어가 썼습니다.", "Shakespeare", "셰익스피어가",
     ("Who wrote Hamlet?", "Who is the author of Hamlet?", "Hamlet was written by whom?", "Name the author of Hamlet."),
     ("햄릿은 누가 썼어요?", "햄릿의 작가는 누구야?", "햄릿을 쓴 사람은?")),
    ("inventor of Hangul", "Hangul was created by King Sejong.", "한글은 세종대왕이 만들었습니다.", "Sejong", "세종대왕이",
     ("Who created Hangul?", "Who invented the Korean alphabet?", "Hangul was created by whom?", "Who made the Korean alphabet?"),
     ("한글은 누가 만들었어요?", "한글을 만든 사람은 누구야?", "한글을 창제한 사람은?")),
)  # fmt: skip

_CAPITAL = (
    ("What is the capital of {}?", "Which city is the capital of {}?", "What's the capital city of {}?", "Name the capital of {}.",
     "Tell me the capital of {}.", "Do you know the capital of {}?", "The capital of {} is which city?", "capital of {}",
     "I forgot the capital of {}. What is it?", "Could you tell me what the capital of {} is?"),
    ("{}의 수도는 어디인가요?", "{}의 수도는?", "{} 수도가 어디야?", "{}의 수도를 알려 주세요.", "{}의 수도 이름이 뭐예요?", "{} 수도를 알려 줘.",
     "{}의 수도가 어디인지 알아요?"),
)  # fmt: skip
_CAPITAL_OF = (
    ("Which country has the capital {}?", "{} is the capital of which country?", "Of which country is {} the capital?",
     "What country is {} the capital of?", "In which country is the capital {}?"),
    ("{}를 수도로 둔 나라는?", "수도가 {}인 나라는 어디인가요?", "{} 수도인 나라가 어디야?", "어느 나라의 수도가 {}예요?"),
)  # fmt: skip
_CONTINENT = (
    ("Which continent is {} on?", "On which continent is {}?", "Where is {} located?", "What continent does {} belong to?",
     "On what continent do I find {}?", "Is {} in Europe, Asia or elsewhere?"),
    ("{}은 어느 대륙에 있어요?", "{}은 어디에 있나요?", "{}이 있는 대륙은?", "{}은 어느 대륙이야?", "{}의 대륙을 알려 줘."),
)  # fmt: skip
_LANGUAGE = (
    ("Which language is spoken in {}?", "What language do people speak in {}?", "What is the main language of {}?",
     "Name the language of {}.", "What do they speak in {}?", "Which language do I need in {}?"),
    ("{}에서는 어떤 언어를 써요?", "{}의 언어는 무엇인가요?", "{} 사람들은 무슨 말을 해요?", "{}에서 쓰는 언어는?", "{}은 무슨 언어를 사용해?"),
)  # fmt: skip
_SYMBOL = (
    ("What is the chemical symbol of {}?", "Which symbol stands for {}?", "What's the symbol for {}?", "Chemical symbol of {}?",
     "Tell me the chemical symbol for {}.", "How do chemists write {}?"),
    ("{}의 원소 기호는?", "{}의 화학 기호는 무엇인가요?", "{} 원소 기호가 뭐야?", "{}의 기호를 알려 주세요.", "{}의 원소 기호를 알려 줘."),
)  # fmt: skip
_LEGS = (
    ("How many legs does {} have?", "What is the number of legs of {}?", "Number of legs of {}?", "How many legs has {}?",
     "Tell me how many legs {} has."),
    ("{}의 다리는 몇 개예요?", "{} 다리가 몇 개야?", "{}은 다리가 몇 개 있나요?", "{}의 다리 수는?", "{} 다리 수를 알려 줘."),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact in both languages (index 0 English, 1 Korean): questions, whole answers, and the phrase that must be in an answer."""

    name: str
    questions: tuple[tuple[str, ...], tuple[str, ...]]
    answers: tuple[str, str]
    phrases: tuple[str, str]


def _of(name: str, wordings: tuple[tuple[str, ...], tuple[str, ...]], subject: tuple[str, str], answers: tuple[str, str],
        phrases: tuple[str, str]) -> Fact:  # fmt: skip
    english = tuple(wording.replace("{}", subject[0]) for wording in wordings[0])
    korean = tuple(_fill_korean(wording, subject[1]) for wording in wordings[1])
    return Fact(name, (english, korean), answers, phrases)


def _fill_korean(wording: str, subject: str) -> str:
    for marked, pair in (("{}은", "은/는"), ("{}이 ", "이/가"), ("{}를", "을/를")):
        if marked in wording:
            tail = " " if marked.endswith(" ") else ""
            wording = wording.replace(marked, particle(subject, pair) + tail)
    return wording.replace("{}", subject)


def _country_facts() -> list[Fact]:
    facts = []
    for en, ko, capital, capital_ko, continent, continent_ko, language, language_ko in COUNTRIES:
        head = en[0].upper() + en[1:]
        capital_answers = (
            f"The capital of {en} is {capital}.".replace("..", "."),
            f"{ko}의 수도는 {capital_ko}입니다.",
        )
        facts += [
            _of(f"capital of {en}", _CAPITAL, (en, ko), capital_answers, (capital, capital_ko)),
            _of(f"continent of {en}", _CONTINENT, (en, ko),
                (f"{head} is in {continent}.", f"{particle(ko, '은/는')} {continent_ko}에 있습니다."), (continent, continent_ko)),
            _of(f"language of {en}", _LANGUAGE, (en, ko),
                (f"People in {en} speak {language}.", f"{ko}에서는 {particle(language_ko, '을/를')} 씁니다."), (language, language_ko)),
        ]  # fmt: skip
    return facts


def _capital_of_facts() -> list[Fact]:
    return [
        _of(f"country of {capital}", _CAPITAL_OF, (capital, capital_ko),
            (f"{capital} is the capital of {en}.", f"{particle(capital_ko, '은/는')} {ko}의 수도입니다."), (en, ko))
        for en, ko, capital, capital_ko, *_ in COUNTRIES
    ]  # fmt: skip


def _other_facts() -> list[Fact]:
    symbols = [
        _of(f"symbol of {en}", _SYMBOL, (en, ko),
            (f"The chemical symbol of {en} is {symbol}.", f"{ko}의 원소 기호는 {symbol}입니다."), (symbol, symbol))
        for en, ko, symbol in ELEMENTS
    ]  # fmt: skip
    legs = [
        _of(f"legs of {en}", _LEGS, (en, ko),
            (f"{en[0].upper() + en[1:]} has {count} legs.", f"{ko}의 다리는 {count}개입니다."), (count, f"{count}개"))
        for en, ko, count in LEGS
    ]  # fmt: skip
    single = [
        Fact(name, (w_en, w_ko), (a_en, a_ko), (p_en, p_ko)) for name, a_en, a_ko, p_en, p_ko, w_en, w_ko in SINGLE
    ]
    return [*symbols, *legs, *single]


FACTS = (*_country_facts(), *_capital_of_facts(), *_other_facts())
CAPITALS = tuple(FACTS[i] for i in range(0, 3 * len(COUNTRIES), 3))


def wording_key(fact: Fact, language: str, index: int) -> str:
    """The key of one wording of one fact."""
    return f"{fact.name}:{language}{index}"


def _draw(rng: Random) -> Exchange:
    fact = pick(rng, FACTS)
    language = 0 if chance(rng, 0.6) else 1
    index, question = indexed(rng, fact.questions[language])
    code = ("en", "ko")[language]
    turns = ask(decorate(rng, question, code), fact.answers[language])
    return Exchange(wording_key(fact, code, index), fact.name, turns, (fact.phrases[language],))


SKILL = Skill("facts", _draw, scores_all_phrases, weight=1.5)
