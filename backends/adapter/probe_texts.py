"""What foreign bases are probed with: written for this purpose, short, in the languages and notations that models are trained on.

Adapters are told apart by how they shift probabilities of ordinary text; what the texts say does not matter. They are never changed
without a new formula version: a base's probe set is derived from them.
"""

from __future__ import annotations

PASSAGES = (
    "The harbour froze early that winter, and the ferries stayed tied to the quay for eleven weeks. People walked across the ice to "
    "work, carrying lanterns, and someone opened a small café halfway between the two shores.",
    "def merge(left: list[int], right: list[int]) -> list[int]:\n    result = []\n    while left and right:\n        source = left if "
    "left[0] <= right[0] else right\n        result.append(source.pop(0))\n    return result + left + right\n",
    "회의는 오전 열 시에 시작해서 열두 시 반에 끝났습니다. 참석자들은 다음 분기 예산과 새 사무실 이전 계획을 논의했고, "
    "최종 결정은 금요일까지 미루기로 했습니다.",
    '{"order": 48213, "customer": {"name": "M. Okafor", "city": "Lagos"}, "items": [{"sku": "A-17", "count": 3, "price": 12.5}, '
    '{"sku": "C-02", "count": 1, "price": 89.0}], "is_paid": true, "note": null}',
    "Der Zug nach Leipzig hat heute etwa zwanzig Minuten Verspätung, weil zwischen Erfurt und Weimar eine Weiche gestört ist. "
    "Reisende werden gebeten, auf die Durchsagen am Bahnsteig zu achten.",
    "Photosynthesis converts light energy into chemical energy. In the first stage, chlorophyll absorbs photons and water is split, "
    "releasing oxygen; in the second, carbon dioxide is fixed into sugars by the Calvin cycle.",
    "昨天下午我们去了城外的一个小村子，那里的人还用石磨磨面。老奶奶请我们喝茶，给我们讲了她年轻时候的故事，天黑了我们才回家。",
    "Theorem. If f is continuous on [a, b] and f(a) < 0 < f(b), then there is a c in (a, b) with f(c) = 0. Proof. Let S be the set of "
    "x in [a, b] with f(x) < 0, and let c = sup S. Suppose f(c) > 0.",
    "Mélangez la farine, le sucre et une pincée de sel, puis ajoutez les œufs un à un. Versez le lait petit à petit en remuant, "
    "laissez reposer la pâte une heure et faites cuire les crêpes à feu vif.",
    "SELECT d.name, COUNT(*) AS orders, SUM(o.total) AS revenue FROM orders o JOIN districts d ON d.id = o.district_id WHERE "
    "o.created_at >= '2023-01-01' GROUP BY d.name HAVING COUNT(*) > 10 ORDER BY revenue DESC LIMIT 5;",
    "この川は山から海まで百二十キロほど流れています。春になると雪がとけて水が増え、土手の桜が咲くころには、近くの町からたくさんの人が散歩に来ます。",
    "Section 4.2. The tenant shall keep the premises in good repair and shall not assign or sublet any part thereof without the prior "
    "written consent of the landlord, which consent shall not be unreasonably withheld.",
    "Los vecinos se reunieron en la plaza para decidir qué hacer con el viejo mercado. Unos querían convertirlo en una biblioteca; "
    "otros preferían alquilarlo a los artesanos del barrio.",
    "git clone the repository, create a branch, and run the tests before you push:\n\n```bash\npython -m venv .venv\nsource "
    ".venv/bin/activate\npip install -r requirements.txt\npytest -q\n```\n",
    "Dear Ms Lindqvist,\n\nThank you for your letter of 3 May. I am sorry that the parcel arrived damaged. We will send a replacement "
    "this week, free of charge, and a courier will collect the broken one.\n\nYours sincerely,\nP. Hale",
    "Старый маяк на мысе давно не работает, но каждый вечер смотритель поднимается по винтовой лестнице и смотрит на море. Говорят, "
    "что он ждёт корабль, который ушёл сорок лет назад.",
    "| Planet | Radius (km) | Day | Moons |\n|---|---|---|---|\n| Mars | 3,390 | 24 h 37 min | 2 |\n| Jupiter | 69,911 | 9 h 56 min | "
    "95 |\n| Saturn | 58,232 | 10 h 42 min | 146 |\n",
    "وصل القطار إلى المحطة قبل موعده بخمس دقائق، فجلسنا في المقهى القريب وشربنا القهوة. كان الجو باردا والسماء صافية، وكانت الساحة "
    "مليئة بالناس.",
    "a) 3x + 7 = 22, so 3x = 15 and x = 5.\nb) x^2 - 5x + 6 = 0 factors as (x - 2)(x - 3) = 0, so x = 2 or x = 3.\nc) The slope of the "
    "line through (1, 2) and (4, 11) is (11 - 2) / (4 - 1) = 3.",
    "O vento levantava a areia e o barulho das ondas não deixava ouvir mais nada. Ela tirou os sapatos, arregaçou as calças e entrou "
    "na água até os joelhos, rindo como uma criança.",
)  # fmt: skip

DIALOGUES = (
    ("What is the capital of Portugal?", "The capital of Portugal is Lisbon."),
    ("Summarise in one sentence: The shop was closed because the owner had gone fishing.",
     "The owner had gone fishing, so the shop was closed."),
    ("대한민국의 수도는 어디인가요?", "대한민국의 수도는 서울입니다."),
    ("Write a Python function that adds two numbers.", "```python\ndef add(a, b):\n    return a + b\n```"),
    ("I bought the wrong size. Can I return it?",
     "Yes. You can return unworn items within 30 days. Please keep the receipt and use the label that came with the parcel."),
    ("Übersetze ins Englische: Guten Morgen, wie geht es dir?", "Good morning, how are you?"),
    ("What is 17 times 6?", "17 times 6 is 102."),
    ("Give me the answer as JSON with the keys name and age: Ana is 31 years old.", '{"name": "Ana", "age": 31}'),
    ("Who wrote Hamlet, and when?", "Hamlet was written by William Shakespeare around the year 1600."),
    ("用一句话介绍你自己。", "我是一个人工智能助手，可以回答问题、写作和编程。"),
    ("My printer shows error E05. What should I do?",
     "Error E05 usually means a paper jam. Switch the printer off, open the rear cover, remove the paper and switch it on again."),
    ("List three fruits.", "1. Apple\n2. Pear\n3. Cherry"),
    ("Is water wet? Answer briefly.", "By everyday use of the word, yes: it makes other things wet."),
    ("Explain what a mutex is to a beginner.",
     "A mutex is a lock that only one thread can hold at a time, so that two threads never change the same data at once."),
    ("次の文を丁寧にしてください：これを見て。", "こちらをご覧ください。"),
    ("Does the museum open on Mondays?", "No, it is closed on Mondays. It opens from Tuesday to Sunday between 10 and 18."),
)  # fmt: skip
