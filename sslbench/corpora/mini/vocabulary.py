"""Words of the embedded corpus, by role: over 600 common English words, none with two readings."""

from __future__ import annotations


def _words(text: str) -> list[str]:
    return text.split()


def _phrases(text: str) -> list[str]:
    return text.replace("\n", "").split("|")


DIGITS = _words("zero one two three four five six seven eight nine")
KEYWORDS = _words("yes no up down left right on off stop go")
OTHER_WORDS = _words("bed bird cat dog happy house marvin sheila tree wow")

PERSONS = _words("""man woman boy girl teacher farmer sailor doctor child singer king queen stranger soldier
baker captain painter hunter merchant servant brother sister mother father uncle cousin neighbor driver writer
lawyer nurse judge priest poet prince princess gardener carpenter butcher tailor guest guard thief student
pilot dancer miner shepherd widow traveler cook clerk officer scholar""")

ANIMALS = _words("""horse dog cat bird fox wolf bear rabbit sheep goat cow pig duck goose owl eagle mouse
frog fish snake deer lion tiger monkey donkey squirrel pigeon spider turtle whale""")

THINGS = _words("""table chair window door lamp book letter basket bottle hammer knife spoon blanket candle
mirror clock picture map coin ring hat coat boot shirt glove umbrella wagon boat ladder bucket rope saddle
sword shield trumpet violin piano drum box bag barrel pillow carpet curtain needle button ribbon kettle plate
cup pocket purse wheel engine machine camera pencil paper ticket key chain flag bell stone shovel""")

FOODS = _words("""bread butter cheese apple orange lemon cherry honey sugar pepper soup cake cookie potato
onion carrot tomato cabbage pudding coffee milk water rice corn bacon salad pie""")

PLACES = _words("""river garden station bridge field market forest harbor castle village church school
library kitchen cellar tower mountain valley island desert beach street corner palace prison hospital museum
theater factory farm barn stable orchard meadow tunnel hotel tavern office cottage lake road hill
temple courtyard lighthouse mill""")

ADJECTIVES = _words("""old young quiet small bright tired brave golden broken gentle hungry narrow heavy
little big tall short strong weak rich poor happy angry clever foolish honest lazy busy proud humble green
yellow purple silver wooden dirty empty full fresh rotten warm cold dark pale rough smooth soft hard sharp
round square thick thin deep shallow famous secret strange common holy wild tame friendly cruel lonely
cheerful silent noisy nervous careful simple precious ancient modern enormous tiny ugly beautiful""")

MOVED = _words("""walked looked waited worked laughed listened slept shouted wandered danced whispered
rested stood sat ran jumped trembled smiled knelt paused arrived vanished returned stumbled hesitated
marched""")

DID = _words("""carried bought sold found lost painted cleaned repaired dropped lifted pushed pulled
followed watched noticed remembered forgot wanted borrowed opened touched kept hid brought took chose stole
needed admired described measured received delivered burned washed protected examined discovered""")

WILL_DO = _words("""carry buy sell find paint clean repair drop lift push pull follow watch remember forget
borrow open touch keep hide bring take choose steal examine deliver measure burn wash describe""")

ADVERBS = _words("""slowly often quickly again alone together quietly gladly suddenly carefully patiently
bravely softly loudly nearby outside inside everywhere upstairs away home early late""")

PREPOSITIONS = _words("by in near under across behind through at beyond beside above below inside around")

TIMES = _phrases("""today|tomorrow|tonight|soon|later|before dinner|after breakfast|in the morning
|in the evening|at midnight|at noon|every winter|every summer|last spring|last autumn""")

NAMES = _words("""anna peter mary john alice robert helen george martha henry susan arthur laura edward
julia frank emma walter clara thomas nancy charles ruth daniel sarah samuel grace victor""")

CITIES = _words("""boston london paris denver chicago berlin madrid vienna houston dallas seattle toronto
sydney moscow dublin austin miami""")

DAYS = _words("monday tuesday wednesday thursday friday saturday sunday today tomorrow tonight")

ARTISTS = _phrases("""the red band|miles turner|mozart|the old crows|clara stone|the river brothers
|victor hill|the midnight choir|anna winter|the silver horses""")

TITLES = _phrases("""the long road home|summer rain|the golden castle|a winter story|the last lighthouse
|broken wheel|the silent island|paper moon|the wooden horse|seven brothers""")

PLAYLISTS = _phrases("morning|workout|dinner party|road trip|quiet evening|classic rock|summer")
GENRES = _words("jazz rock classical country folk dance")
MEALS = _words("pizza soup breakfast steak salad chicken")
RESTAURANTS = _words("restaurant cafe diner tavern bakery")
WEATHERS = _words("rain snow sunshine clouds fog")
RATINGS = DIGITS[1:6]
PARTIES = DIGITS[2:9]
