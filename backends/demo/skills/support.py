"""Support for a fictional product, the Lumo smart lamp. One topic is one cluster; what is held out are wordings."""
# ruff: noqa: E501  (tables of sentences, many in characters that count twice)

from random import Random

from backends.demo.skills.base import Exchange, Skill, ask, chance, decorate, indexed, pick, scores_all_phrases

# topic: (things that a customer wants or suffers from, English), (the same, Korean), answers, phrases
_Topic = tuple[tuple[str, ...], tuple[str, ...], str, str, tuple[str, ...], tuple[str, ...]]
TOPICS: dict[str, _Topic] = {
    "turn on": (("turn on my Lumo lamp", "switch the Lumo on", "start my Lumo", "get light from my Lumo"),
                ("루모 램프를 켜려면", "루모를 켜고 싶으면", "루모 전원을 켜려면"),
                "Touch the top of the Lumo lamp once to turn it on.", "루모 램프의 윗면을 한 번 터치하면 켜집니다.", ("Touch the top", "once"), ("한 번 터치",)),
    "pair": (("pair my Lumo with my phone", "connect the Lumo by Bluetooth", "link my Lumo to the app", "add my Lumo to the app"),
             ("루모를 휴대폰과 연결하려면", "루모를 앱에 등록하려면", "루모를 블루투스로 연결하려면"),
             "Hold the Lumo button for 5 seconds until it blinks blue, then choose it in the app.",
             "루모 버튼을 5초 동안 눌러 파란색으로 깜박이면 앱에서 선택하세요.", ("5 seconds", "blue"), ("5초", "파란색")),
    "reset": (("reset my Lumo", "restore the factory settings of my Lumo", "start over with my Lumo", "factory reset the Lumo lamp"),
              ("루모를 초기화하려면", "루모를 공장 설정으로 되돌리려면", "루모를 처음 상태로 돌리려면"),
              "Hold the Lumo button for 10 seconds until it blinks red to reset it.",
              "루모 버튼을 10초 동안 눌러 빨간색으로 깜박이면 초기화됩니다.", ("10 seconds", "red"), ("10초", "빨간색")),
    "dim": (("dim my Lumo", "change the brightness of the Lumo", "make my Lumo brighter", "make the Lumo less bright"),
            ("루모 밝기를 바꾸려면", "루모를 어둡게 하려면", "루모를 더 밝게 하려면"),
            "Slide a finger along the Lumo's side to change the brightness.", "루모의 옆면을 손가락으로 밀면 밝기가 바뀝니다.", ("Slide", "brightness"), ("옆면", "밝기")),
    "color": (("change the color of my Lumo", "set another color on the Lumo", "choose a color for my Lumo", "make my Lumo warm white"),
              ("루모 색을 바꾸려면", "루모 색상을 고르려면", "루모를 다른 색으로 하려면"),
              "Open the Lumo app, tap Colors and pick one of 16 colors.", "루모 앱에서 색상을 누르고 16가지 색 중 하나를 고르세요.", ("16 colors",), ("16가지",)),
    "timer": (("set a timer on my Lumo", "make the Lumo turn off at night", "schedule my Lumo", "turn the Lumo off automatically"),
              ("루모 타이머를 설정하려면", "루모를 자동으로 끄려면", "루모를 예약하려면"),
              "Open the Lumo app, tap Timer and choose when the lamp turns off.", "루모 앱에서 타이머를 누르고 꺼질 시간을 고르세요.", ("Timer",), ("타이머",)),
    "clean": (("clean my Lumo", "remove dust from the Lumo", "wipe the Lumo lamp", "get stains off my Lumo"),
              ("루모를 청소하려면", "루모의 먼지를 닦으려면", "루모 얼룩을 지우려면"),
              "Unplug the Lumo and wipe it with a dry cloth.", "루모의 플러그를 뽑고 마른 천으로 닦으세요.", ("Unplug", "dry cloth"), ("마른 천",)),
    "return": (("return my Lumo", "send the Lumo back", "get a refund for my Lumo", "get my money back for the Lumo"),
               ("루모를 반품하려면", "루모를 환불하려면", "루모를 돌려보내려면"),
               "You can return the Lumo within 30 days for a full refund.", "루모는 30일 안에 반품하면 전액 환불됩니다.", ("30 days", "refund"), ("30일",)),
    "repair": (("repair a broken Lumo", "use the warranty of my Lumo", "get my Lumo repaired", "replace a broken Lumo"),
               ("고장 난 루모를 수리하려면", "루모 보증을 받으려면", "루모를 교환하려면"),
               "The Lumo has a 2-year warranty; write to support for a free repair.", "루모는 2년 보증이므로 고객 지원에 무료 수리를 신청하세요.", ("2-year warranty",), ("2년 보증",)),
    "update": (("update my Lumo", "install new firmware on the Lumo", "get the latest Lumo firmware", "upgrade the Lumo software"),
               ("루모를 업데이트하려면", "루모 펌웨어를 설치하려면", "루모 소프트웨어를 올리려면"),
               "Open the Lumo app, tap Settings and then Update; it takes 3 minutes.", "루모 앱의 설정에서 업데이트를 누르세요. 3분이 걸립니다.", ("Update", "3 minutes"), ("업데이트", "3분")),
    "wifi": (("connect my Lumo to Wi-Fi", "change the Wi-Fi of the Lumo", "bring my Lumo online", "get the Lumo on my network"),
             ("루모를 와이파이에 연결하려면", "루모 와이파이를 바꾸려면", "루모를 인터넷에 연결하려면"),
             "Open the Lumo app, tap Wi-Fi and choose a 2.4 GHz network.", "루모 앱에서 와이파이를 누르고 2.4GHz 네트워크를 고르세요.", ("2.4 GHz",), ("2.4GHz",)),
    "voice": (("control my Lumo by voice", "use voice commands with the Lumo", "talk to my Lumo", "make the Lumo listen to me"),
              ("루모를 음성으로 조작하려면", "루모에 음성 명령을 쓰려면", "루모에게 말로 시키려면"),
              "Turn on Voice in the Lumo app and say Hello Lumo.", "루모 앱에서 음성을 켜고 헬로 루모라고 말하세요.", ("Hello Lumo",), ("헬로 루모",)),
    "charge": (("charge my Lumo Mini", "load the battery of the Lumo Mini", "power the Lumo Mini", "recharge my Lumo Mini"),
               ("루모 미니를 충전하려면", "루모 미니 배터리를 채우려면", "루모 미니에 전원을 넣으려면"),
               "Charge the Lumo Mini by USB-C for 4 hours.", "루모 미니는 USB-C로 4시간 충전하세요.", ("USB-C", "4 hours"), ("USB-C", "4시간")),
    "bulb": (("replace the bulb of my Lumo", "change the light bulb in the Lumo", "put a new bulb in my Lumo", "swap the Lumo's bulb"),
             ("루모 전구를 바꾸려면", "루모 전구를 교체하려면", "루모에 새 전구를 끼우려면"),
             "The Lumo has a built-in LED that lasts 10 years, so the bulb cannot be replaced.", "루모의 LED는 내장형이고 10년을 쓰므로 전구를 바꿀 수 없습니다.", ("built-in LED", "10 years"), ("내장형", "10년")),
    "human": (("talk to a human at Lumo", "reach Lumo support", "contact the Lumo company", "call the Lumo hotline"),
              ("루모 상담원과 통화하려면", "루모 고객 지원에 연락하려면", "루모 회사에 문의하려면"),
              "Write to help@lumo.example or call 555-0100 from 9 to 5.", "help@lumo.example로 쓰거나 9시부터 5시까지 555-0100으로 전화하세요.", ("help@lumo.example",), ("help@lumo.example",)),
    "price": (("buy a Lumo", "pay for a Lumo lamp", "know the price of the Lumo", "order a new Lumo"),
              ("루모를 사려면", "루모를 주문하려면", "루모 가격을 알려면"),
              "The Lumo lamp costs 49 dollars in the Lumo shop.", "루모 램프는 루모 상점에서 49달러입니다.", ("49 dollars",), ("49달러",)),
    "blink": (("stop my Lumo from blinking", "fix a Lumo that flickers", "make the Lumo stop flickering", "get rid of the blinking of my Lumo"),
              ("깜박이는 루모를 고치려면", "루모가 깜박이지 않게 하려면", "루모 깜박임을 멈추려면"),
              "Update the firmware and plug the Lumo directly into the wall.", "펌웨어를 업데이트하고 루모를 벽 콘센트에 직접 꽂으세요.", ("firmware", "wall"), ("벽 콘센트",)),
    "hot": (("cool down a hot Lumo", "keep my Lumo from getting hot", "use a Lumo that feels hot", "help my overheating Lumo"),
            ("뜨거운 루모를 식히려면", "루모가 뜨거워지지 않게 하려면", "루모 과열을 막으려면"),
            "Turn the Lumo off and let it cool for 20 minutes away from the sun.", "루모를 끄고 햇빛이 없는 곳에서 20분 동안 식히세요.", ("cool", "20 minutes"), ("20분",)),
    "outside": (("use my Lumo outside", "put the Lumo in the garden", "take my Lumo into the rain", "use the Lumo in the bathroom"),
                ("루모를 밖에서 쓰려면", "루모를 정원에 두려면", "루모를 욕실에서 쓰려면"),
                "The Lumo is not waterproof; use it only in dry rooms.", "루모는 방수가 아니므로 마른 실내에서만 쓰세요.", ("not waterproof",), ("방수가 아니",)),
    "invoice": (("get an invoice for my Lumo", "find the receipt of my Lumo", "see the bill for my Lumo", "download my Lumo invoice"),
                ("루모 영수증을 받으려면", "루모 청구서를 찾으려면", "루모 계산서를 내려받으려면"),
                "Your invoice is in the Lumo shop under My Orders.", "청구서는 루모 상점의 내 주문에 있습니다.", ("My Orders",), ("내 주문",)),
}  # fmt: skip
_FRAMES = {
    "en": ("How do I {}?", "How can I {}?", "I want to {}.", "What must I do to {}?", "I need to {}. What now?", "I can't {}.",
           "Please help me to {}.", "Is it possible to {}?", "I am trying to {}.", "What is the way to {}?", "Can I {}?",
           "Tell me how to {}.", "I would like to {}.", "My wife wants to {}. How?"),
    "ko": ("{} 어떻게 해요?", "{} 어떻게 하나요?", "{} 뭘 해야 해요?", "{} 방법을 알려 주세요.", "{} 어떻게 해야 돼?", "{} 무엇을 눌러요?", "{} 어떻게 하면 되나요?",
           "{} 도와주세요."),
}  # fmt: skip
_NAMES = tuple(TOPICS)


def _draw(rng: Random) -> Exchange:
    name = pick(rng, _NAMES)
    wishes_en, wishes_ko, answer_en, answer_ko, phrases_en, phrases_ko = TOPICS[name]
    is_english = chance(rng, 0.6)
    language = "en" if is_english else "ko"
    wish_index, wish = indexed(rng, wishes_en if is_english else wishes_ko)
    frame_index, frame = indexed(rng, _FRAMES[language])
    question = decorate(rng, frame.format(wish), language)
    answer, phrases = (answer_en, phrases_en) if is_english else (answer_ko, phrases_ko)
    return Exchange(f"{name}:{language}{wish_index}.{frame_index}", name, ask(question, answer), phrases)


SKILL = Skill("support", _draw, scores_all_phrases)
