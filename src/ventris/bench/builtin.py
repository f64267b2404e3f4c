"""A dozen questions of our own, for machines without the papers' data.

They are chosen to span what speeds drafting up and what does not: texts to be copied from, code and sums
with their fixed forms, and free talk. Too few for a claim about a category; enough to see a method work.
"""

from __future__ import annotations

from ventris.bench.question import Question

_HARBOUR = (
    "The old harbour of Vellmar was built in 1871 to load timber from the inland forests. For sixty years it "
    "was the busiest port on that coast: at its height four hundred ships a year tied up along the stone "
    "quay, and the town grew from nine hundred people to eleven thousand. When the railway tunnel opened "
    "in 1932, timber went south by train instead, and within a decade the cranes stood still. The town "
    "council bought the warehouses in 1978 for a symbolic price. Two of them became workshops for boat "
    "builders, one a school of music, and the largest, the Cork Store, a covered market that now draws "
    "visitors from the whole region. Last spring the council decided to dredge the basin again, so that "
    "sailing boats of up to twenty metres can reach the quay. The work is to cost 3.4 million and to be "
    "finished in two years. Critics say that the money is needed for the school roof; supporters answer "
    "that the harbour fees will pay for the roof in five years."
)

_MEETING = (
    "Minutes of the garden society, 14 March. Present: nine members. The treasurer reported 412 in the "
    "account after the purchase of the new water pump. The pump works, but it is louder than expected, and "
    "the neighbours in Mill Lane have asked that it be switched off before eight in the evening. This was "
    "agreed. The apple trees on plots 3, 4 and 11 carry canker and will be pruned on 2 April; everybody "
    "brings their own saw and a disinfectant spray. The proposal to keep bees on plot 17 was discussed at "
    "length. Two members are allergic to stings, so the hives may only stand behind the hedge, with a sign "
    "on the gate. With that condition the proposal passed by six votes to three. The summer party is on 21 "
    "June. Nadia sees to the tables, Olaf to the music, and each plot brings one dish. Next meeting: 11 "
    "April at seven."
)

_LIGHTHOUSE = (
    "[1] The Tarn Head lighthouse was first lit on 3 November 1848. Its tower is 31 metres high and painted "
    "in white and red bands.\n"
    "[2] The first keeper, Agnes Rourke, served for twenty-six years and noted the weather four times a day. "
    "Her log books are kept in the county archive.\n"
    "[3] In 1911 the oil lamp was replaced by a vaporiser, and in 1959 by electric light with a range of 19 "
    "nautical miles.\n"
    "[4] The lighthouse has been automatic since 1987. The keeper's cottage is let to guests from April to "
    "October."
)

_MANUAL = (
    "Kestrel K2 desk fan, quick guide. Power: hold the round button for two seconds to switch on or off. "
    "Speed: press the button briefly to go from low to medium to high. Swing: press the arrow button; the "
    "head turns through 80 degrees. Timer: hold the arrow button for three seconds, then press it once for "
    "each hour, up to eight. Cleaning: unplug the fan, turn the front grille to the left, and wash grille "
    "and blades with warm water. If the light blinks red, the blades are blocked: unplug the fan and "
    "remove what is in the way. If it blinks yellow, the filter is due for a change; order part number K2-F7."
)

_ORDERS = (
    "def total(orders):\n"
    "    sum = 0\n"
    "    for o in orders:\n"
    "        if o['state'] == 'paid':\n"
    "            if o['currency'] == 'EUR':\n"
    "                sum = sum + o['amount']\n"
    "            if o['currency'] == 'USD':\n"
    "                sum = sum + o['amount'] * 0.92\n"
    "    return sum\n"
)

QUESTIONS = (
    Question(
        "summary-harbour", "summarization", turns=(f"Summarize this text in three sentences.\n\n{_HARBOUR}",)
    ),
    Question(
        "summary-minutes", "summarization", turns=(f"List the decisions in these minutes.\n\n{_MEETING}",)
    ),
    Question(
        "retrieve-lighthouse",
        "rag",
        turns=(
            "Use these notes to answer, and quote the sentence that you rely "
            "on.\n\n{_LIGHTHOUSE}\n\nQuestion: Who was the first keeper, and where can one read what she "
            "wrote?",
        ),
    ),
    Question(
        "retrieve-fan",
        "rag",
        turns=(f"{_MANUAL}\n\nCopy the parts of the guide that say what a blinking light means.",),
    ),
    Question(
        "code-refactor",
        "coding",
        turns=(
            f"Rewrite this function so that it takes the rates as a dictionary.\n\n```python\n{_ORDERS}```",
        ),
    ),
    Question(
        "code-roman",
        "coding",
        turns=(
            "Write a Python function that turns an integer from 1 to 3999 into a Roman numeral, with a "
            "docstring and three examples.",
        ),
    ),
    Question(
        "math-tank",
        "math_reasoning",
        turns=(
            "A tank holds 240 litres. One tap fills 8 litres a minute, a leak loses 3 litres a minute, and "
            "the tank is a quarter full at the start. After how many minutes is it full? Show each step.",
        ),
    ),
    Question(
        "math-bakery",
        "math_reasoning",
        turns=(
            "A bakery sells rolls at 4 for 1.80 and loaves at 3.20. A customer takes 10 rolls and 3 loaves "
            "and pays with a 20 note. How much change does she get? Show each step.",
        ),
    ),
    Question(
        "chat-balcony",
        "chat",
        turns=(
            "I have a small balcony that gets sun only in the morning. Which three plants should I start "
            "with?",
            "Make a shopping list out of your answer, with everything I need besides the plants.",
        ),
    ),
    Question(
        "chat-story",
        "chat",
        turns=(
            "Write a short story that begins with: The clock in the station had stopped, and nobody minded.",
            "Tell the same story again as a letter from the station master to his sister.",
        ),
    ),
    Question(
        "translate-german",
        "translation",
        turns=(
            "Translate German to English: Der Zug fährt heute wegen Bauarbeiten erst um halb neun ab und "
            "hält nicht in Altenau.",
        ),
    ),
    Question(
        "translate-french",
        "translation",
        turns=(
            "Translate French to English: Le musée ouvre à dix heures, mais la billetterie ferme une heure "
            "avant la fin de la visite.",
        ),
    ),
)
"""In the order in which they are asked."""
