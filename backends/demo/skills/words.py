"""Word lists that several skills draw from."""
# ruff: noqa: E501  (tables of sentences, many in characters that count twice)

COMMON_WORDS = (
    "apple", "bread", "chair", "dance", "eagle", "field", "glass", "house", "island", "juice", "kitchen", "lemon", "music", "night",
    "ocean", "paper", "queen", "river", "stone", "table", "uncle", "valley", "water", "yellow", "zebra", "autumn", "bridge", "cloud",
    "dragon", "engine", "forest", "garden", "hammer", "insect", "jacket", "kettle", "ladder", "market", "needle", "orange", "pencil",
    "rabbit", "silver", "tiger", "umbrella", "village", "window", "anchor", "basket", "candle", "desert", "empire", "flower", "guitar",
    "honey", "iron", "jungle", "king", "lamp", "mirror", "nest", "owl", "planet", "rain", "snow", "train", "violin", "wind", "bird",
    "cat", "dog", "fish", "gold", "hill", "ice", "lake", "moon", "nose", "oak", "pear", "road", "sun", "tree", "wolf", "boat", "cup",
    "door", "egg", "fire", "goat", "hat", "ink", "key", "leaf", "milk", "net", "oil", "pig", "rose", "salt", "tent", "wall",
)  # fmt: skip
LETTERS = "abcdefghijklmnopqrstuvwxyz"
KOREAN_SYLLABLES = "가나다라마바사아자차카타파하고노도로모보소오조구누두무부수우주기니디리미비시이지"
ENGLISH_NAMES = (
    "Anna", "Ben", "Clara", "David", "Emma", "Frank", "Grace", "Henry", "Ivy", "Jack", "Kate", "Leo", "Maria", "Noah", "Olivia", "Paul",
    "Rachel", "Sam", "Tina", "Victor", "Wendy", "Zoe", "Alice", "Bob", "Carol", "Daniel", "Eva", "Felix", "Helen", "Ian", "Julia", "Kevin",
    "Laura", "Mark", "Nina", "Oscar", "Peter", "Rosa", "Steve", "Tom",
)  # fmt: skip
KOREAN_NAMES = (
    "민지", "서준", "하윤", "지호", "수아", "도윤", "예준", "지우", "은우", "서연", "현우", "유진", "지민", "태현", "나연", "준호", "소영", "민수",
    "영희", "철수", "미나", "동현", "혜진", "재민", "보라", "성민", "가은", "진우",
)  # fmt: skip
CITIES = (
    ("Seoul", "서울"), ("Busan", "부산"), ("Daegu", "대구"), ("Incheon", "인천"), ("Jeju", "제주"), ("Paris", "파리"), ("London", "런던"),
    ("Berlin", "베를린"), ("Rome", "로마"), ("Madrid", "마드리드"), ("Tokyo", "도쿄"), ("Osaka", "오사카"), ("Beijing", "베이징"),
    ("Vienna", "빈"), ("Oslo", "오슬로"), ("Lisbon", "리스본"), ("Boston", "보스턴"), ("Chicago", "시카고"), ("Toronto", "토론토"),
    ("Sydney", "시드니"), ("Cairo", "카이로"), ("Delhi", "델리"), ("Lima", "리마"), ("Athens", "아테네"), ("Dublin", "더블린"),
)  # fmt: skip
JOBS = (
    ("teacher", "교사"), ("doctor", "의사"), ("nurse", "간호사"), ("engineer", "엔지니어"), ("farmer", "농부"), ("pilot", "조종사"),
    ("lawyer", "변호사"), ("chef", "요리사"), ("painter", "화가"), ("singer", "가수"), ("writer", "작가"), ("student", "학생"),
    ("driver", "운전사"), ("dentist", "치과 의사"), ("baker", "제빵사"), ("designer", "디자이너"),
)  # fmt: skip
COLORS = (
    ("red", "빨간색"), ("blue", "파란색"), ("green", "초록색"), ("yellow", "노란색"), ("black", "검은색"), ("white", "흰색"),
    ("purple", "보라색"), ("orange", "주황색"), ("pink", "분홍색"), ("brown", "갈색"),
)  # fmt: skip


def has_final_consonant(word: str) -> bool:
    """Whether a Korean word ends in a consonant, which decides the form of the particle after it."""
    code = ord(word[-1]) - 0xAC00
    return 0 <= code < 11172 and code % 28 != 0


def particle(word: str, pair: str) -> str:
    """`word` with the right form of a particle pair written `은/는`, `이/가`, `을/를`, `과/와`."""
    with_consonant, without = pair.split("/")
    return word + (with_consonant if has_final_consonant(word) else without)
