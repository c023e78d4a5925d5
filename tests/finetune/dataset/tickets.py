"""Clean support tickets in Korean and English: seeded, imports nothing of the code under test."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

Record = dict[str, Any]

KO_PRODUCTS = (
    "무선 청소기",
    "공기청정기",
    "노트북",
    "블루투스 이어폰",
    "전기밥솥",
    "커피머신",
    "스마트워치",
    "태블릿",
    "가습기",
    "전동 칫솔",
    "로봇청소기",
    "게이밍 의자",
    "기계식 키보드",
    "빔프로젝터",
    "캠핑 랜턴",
    "에어프라이어",
    "정수기 필터",
    "전기 히터",
    "모니터 암",
    "외장 하드",
)
KO_PROBLEMS = (
    "전원이 켜지지 않습니다",
    "배송이 일주일째 멈춰 있어요",
    "화면에 세로줄이 생겼어요",
    "결제가 두 번 승인되었습니다",
    "다른 색상이 왔습니다",
    "소음이 점점 커지고 있어요",
    "앱과 연결이 자꾸 끊깁니다",
    "설명서가 빠져 있습니다",
    "충전이 절반에서 멈춥니다",
    "쿠폰이 적용되지 않았어요",
    "버튼이 눌리지 않아요",
    "포장이 찢어진 채로 도착했습니다",
    "보증서 등록이 거절되었어요",
    "세금계산서가 발행되지 않았습니다",
    "냄새가 심하게 납니다",
    "업데이트 뒤로 느려졌습니다",
    "부속품 하나가 부족합니다",
    "물이 새고 있습니다",
)
KO_SINCE = (
    "지난 주말부터",
    "어제 저녁에 받았는데",
    "구입한 지 {n}일 만에",
    "처음 켰을 때부터",
    "이사하고 나서",
    "펌웨어를 올린 뒤로",
    "아이가 떨어뜨린 다음부터",
    "{m}월 행사 때 샀는데",
    "설치 기사님이 다녀간 뒤",
    "한 달 가까이 잘 쓰다가",
    "비가 많이 온 날부터",
    "출장에서 돌아와 보니",
)
KO_DETAILS = (
    "껐다 켜 보았지만 달라지지 않았습니다.",
    "설명서 {n}쪽대로 해 보았습니다.",
    "다른 콘센트에서도 똑같아요.",
    "같은 제품을 쓰는 동료는 괜찮다고 합니다.",
    "사진을 {m}장 첨부했습니다.",
    "주문번호는 {code}입니다.",
    "매장에서는 온라인으로 문의하라고 하네요.",
    "지난번 답변대로 초기화도 했습니다.",
    "설치한 방은 {n}평 정도입니다.",
    "불빛이 빨간색으로 깜빡입니다.",
    "선물용이라 날짜가 급합니다.",
    "영수증은 메일로 받아 두었습니다.",
    "전화 연결이 어려워 글을 남깁니다.",
    "고객센터 1588-{dddd}에서는 접수만 된다고 합니다.",
    "모델명은 FX-{n}{m}입니다.",
)
KO_ASKS = (
    "교환이 가능한가요?",
    "환불 절차를 알려 주세요.",
    "언제쯤 해결되나요?",
    "수리 비용이 얼마나 드나요?",
    "어디에 맡기면 되나요?",
    "부품만 따로 살 수 있나요?",
    "무엇을 더 확인해야 하나요?",
    "방문 수리를 신청하고 싶습니다.",
    "취소하면 수수료가 있나요?",
    "대신 다른 제품으로 바꿀 수 있을까요?",
)
KO_FIRST = (
    "불편을 드려 죄송합니다.",
    "남겨 주신 내용을 확인했습니다.",
    "{p} 문제로 고생이 많으셨겠습니다.",
    "자세히 적어 주셔서 고맙습니다.",
    "말씀하신 증상은 점검이 필요한 상태로 보입니다.",
    "해당 주문을 조회해 보았습니다.",
    "같은 증상이 몇 건 접수되어 원인을 찾고 있습니다.",
)
KO_STEPS = (
    "먼저 전원 코드를 빼고 {n}분 뒤에 다시 꽂아 주세요.",
    "앱의 설정에서 기기를 지운 뒤 새로 등록해 주세요.",
    "구입하신 날로부터 {m}주 안에는 무상으로 교환해 드립니다.",
    "가까운 서비스 센터에 {n}시까지 맡기시면 당일에 점검합니다.",
    "택배 기사가 {m}일 안에 방문하여 물건을 받아 갑니다.",
    "승인된 금액 가운데 하나는 {n}영업일 안에 취소됩니다.",
    "필터를 흐르는 물에 씻고 그늘에서 말려 주세요.",
    "화면 사진을 문의 게시판에 올려 주시면 담당 부서가 판단합니다.",
    "부속품은 오늘 오후에 따로 보내 드리겠습니다.",
    "보증 기간이 {n}개월 남아 있어 비용은 들지 않습니다.",
    "배터리를 완전히 쓴 다음 {m}시간 동안 충전해 주세요.",
)
KO_LAST = (
    "해결되지 않으면 다시 알려 주세요.",
    "진행 상황은 문자로 안내해 드리겠습니다.",
    "추가로 궁금한 점은 언제든 남겨 주세요.",
    "내일 오전에 담당자가 한 번 더 확인하겠습니다.",
    "편하신 시간을 알려 주시면 예약해 드리겠습니다.",
    "문의는 help@shop.example 로도 받고 있습니다.",
)

EN_PRODUCTS = (
    "vacuum cleaner",
    "air purifier",
    "laptop",
    "headset",
    "rice cooker",
    "espresso machine",
    "smart watch",
    "tablet",
    "humidifier",
    "electric toothbrush",
    "robot mower",
    "gaming chair",
    "keyboard",
    "projector",
    "camping lantern",
    "air fryer",
    "water filter",
    "space heater",
    "monitor arm",
    "external drive",
)
EN_PROBLEMS = (
    "does not turn on",
    "has been stuck in transit",
    "shows vertical lines on its screen",
    "was charged to my card twice",
    "arrived in the wrong colour",
    "gets louder every day",
    "keeps losing its connection to the app",
    "came without a manual",
    "stops charging half way",
    "was not discounted by the coupon",
    "has a button that sticks",
    "arrived with a torn box",
    "cannot be registered for the warranty",
    "smells of burnt plastic",
    "became slow after the update",
    "is missing a screw",
    "leaks water",
)
EN_SINCE = (
    "Since last weekend",
    "I received it yesterday and",
    "After {n} days of use",
    "From the first time I switched it on",
    "After we moved house",
    "Since the firmware update",
    "I bought it in the sale of week {m} and",
    "Ever since the technician left",
    "It worked for a month, and now",
    "When I came back from a trip",
)
EN_DETAILS = (
    "Turning it off and on again changed nothing.",
    "I followed page {n} of the manual.",
    "It is the same with another socket.",
    "A colleague with the same product has no trouble.",
    "I attached {m} pictures.",
    "The order is {code}.",
    "The store told me to ask online.",
    "I reset it as your last answer said.",
    "The light blinks red.",
    "It is a gift, so the date matters.",
    "I kept the receipt.",
    "Nobody answers the phone.",
    "The model is FX-{n}{m}.",
)
EN_ASKS = (
    "Can I exchange it?",
    "How do I get a refund?",
    "When will this be solved?",
    "How much would the repair cost?",
    "Where do I bring it?",
    "Can I buy only that part?",
    "What else should I check?",
    "I would like a technician to visit.",
    "Is there a fee if I cancel?",
    "Could I take another product instead?",
)
EN_FIRST = (
    "We are sorry for the trouble.",
    "We have read your report.",
    "That must be annoying with a new {p}.",
    "Thank you for the details.",
    "What you describe sounds like something we should look at.",
    "We looked the order up.",
    "We have had a few reports like this and are looking for the cause.",
)
EN_STEPS = (
    "Please unplug it and wait {n} minutes before you plug it in again.",
    "Remove the device in the settings of the app and add it anew.",
    "Within {m} weeks of buying it, an exchange is free.",
    "A service centre near you checks it the same day if you bring it before {n}.",
    "A courier will pick it up within {m} days.",
    "One of the two charges is released within {n} working days.",
    "Rinse the filter under running water and let it dry in the shade.",
    "If you upload a photo of the screen, our team can judge it.",
    "We will send the missing part this afternoon.",
    "Your warranty has {n} months left, so it costs nothing.",
    "Let the battery run empty and charge it for {m} hours.",
)
EN_LAST = (
    "Let us know if that does not help.",
    "We will keep you posted by message.",
    "Feel free to ask if anything is unclear.",
    "Someone will look at it again tomorrow morning.",
    "Tell us when it suits you and we will book a slot.",
    "You can also write to support@shop.example.",
)


def ticket(rng: Random, language: str = "") -> tuple[str, str]:
    """A question and its answer."""
    language = language or ("ko" if rng.random() < 0.6 else "en")
    banks = _KO if language == "ko" else _EN
    products, problems, since, details, asks, first, steps, last = banks
    product = rng.choice(products)
    fill = _Filler(rng, product)
    chosen = rng.sample(details, rng.randint(1, 3))
    head = _subject(rng.choice(since), product, rng.choice(problems), language)
    question = " ".join(fill(part) for part in (head, *chosen, rng.choice(asks)))
    answer = " ".join(
        fill(part) for part in (rng.choice(first), *rng.sample(steps, rng.randint(1, 3)), rng.choice(last))
    )
    return question, answer


_KO = (KO_PRODUCTS, KO_PROBLEMS, KO_SINCE, KO_DETAILS, KO_ASKS, KO_FIRST, KO_STEPS, KO_LAST)
_EN = (EN_PRODUCTS, EN_PROBLEMS, EN_SINCE, EN_DETAILS, EN_ASKS, EN_FIRST, EN_STEPS, EN_LAST)


def _subject(since: str, product: str, problem: str, language: str) -> str:
    return f"{since} {product} {problem}." if language == "ko" else f"{since} my {product} {problem}."


class _Filler:
    def __init__(self, rng: Random, product: str) -> None:
        self._rng, self._product = rng, product

    def __call__(self, part: str) -> str:
        rng = self._rng
        code = "".join(rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(2)) + f"-{rng.randrange(10**7):07d}"
        return part.format(
            n=rng.randint(2, 29), m=rng.randint(2, 9), code=code, p=self._product, dddd=f"{rng.randrange(10**4):04d}"
        )


def alpaca(rng: Random, language: str = "") -> Record:
    question, answer = ticket(rng, language)
    return {"instruction": question, "input": "", "output": answer}


def chat(rng: Random, language: str = "", num_exchanges: int = 0) -> Record:
    """One to three exchanges; a third of them with a system prompt."""
    language = language or ("ko" if rng.random() < 0.6 else "en")
    messages = []
    if rng.random() < 0.33:
        messages.append(
            {
                "role": "system",
                "content": "당신은 친절한 상담원입니다." if language == "ko" else "You are a support agent.",
            }
        )
    for _ in range(num_exchanges or rng.choice((1, 1, 2, 3))):
        question, answer = ticket(rng, language)
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages}


def distinct(rng: Random, count: int, make: Any = alpaca) -> Iterator[Record]:
    """Clean rows, no two with the same question."""
    seen: set[str] = set()
    while len(seen) < count:
        record = make(rng)
        key = str(record.get("instruction") or record.get("messages"))
        if key not in seen:
            seen.add(key)
            yield record
