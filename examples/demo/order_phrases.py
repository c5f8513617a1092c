"""The phrase banks of the demo's orders: what people write who want something sent by a guitar maker's workshop.

Hand-written for this project; the names are ordinary first names and nobody's in particular. Each bank has two halves:
of what `held_out` lists, training shows nothing, neither a thing nor a city, a name or a sentence.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Bank:
    """One place of a sentence: what training fills it with, and what only the held-out rows do."""

    training: tuple[str, ...]
    held_out: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.replace("_", " ") for word in text.split())


# Each has the places {name}, {city}, {count} and {items}; {count} {items} is "two bone nuts" or "1 bone nut".
SENTENCES = Bank(
    training=(
        "Hi, {name} here. Please send {count} {items} to {city}.",
        "Hello, my name is {name} and I would like {count} {items}, delivered to {city}.",
        "Could you ship {count} {items} to {city}? Thanks, {name}",
        "{name} from {city} wants to order {count} {items}.",
        "I need {count} {items} in {city} as soon as you can. {name}",
        "Please put me down for {count} {items}. The name is {name}, and it goes to {city}.",
        "Good morning! {count} {items} for {name}, please, shipped to {city}.",
        "To the workshop: {count} {items}, to be sent to {city}. Kind regards, {name}",
        "This is {name}. I live in {city} and I'd like to buy {count} {items}.",
        "Can I get {count} {items} sent over to {city}? It's for {name}.",
        "Dear team, {name} would be glad of {count} {items}. The parcel should go to {city}.",
        "Sending to {city}: {count} {items}. Best wishes from {name}.",
        "We are out of them again, so {count} {items} to {city}, please. - {name}",
        "Order for {name} in {city}: {count} {items}.",
        "My order is {count} {items}. I'm {name}, and the address is in {city}.",
        "Is it possible to have {count} {items} in {city} by next week? Yours, {name}",
        "Here in {city} nobody sells them: {count} {items}, please. {name}",
        "It's {name} again, from {city}. This time I want {count} {items}.",
        "{city}, please. {count} {items}. Ask for {name} at the door.",
        "{name} speaking, I'm calling from {city} about {count} {items} that I want to order.",
        "A friend, {name}, needs {count} {items}. Can they be in {city} on Monday?",
        "Thanks for last time! Now {count} {items} to the shop in {city}. Greetings, {name}",
        "Deliver {count} {items} to {name}, {city}.",
        "In {city} there is a {name} who waits for {count} {items}. Please send them.",
    ),
    held_out=(
        "Hey there, it's {name}! I'd love {count} {items}, and I'm based in {city}.",
        "{city} is where it should go: {count} {items}. Many thanks, {name}",
        "A customer called {name} asked for {count} {items}, delivery to {city}.",
        "Would you mail {count} {items} to me? I'm {name}, from {city}.",
        "Please reserve {count} {items} for {name} and post them to {city}.",
        "I'm after {count} {items}. Send the lot to {city}, please. Cheers, {name}",
    ),
)

# An item is one of these words and a thing.
KINDS = _words(
    "small large blue red green black white brown old new heavy light long short round square dark plain soft hard "
    "thin thick wide double metal paper plastic glass"
)
THINGS = Bank(
    training=_words(
        "chair table book pen bag plate bottle towel blanket mirror clock frame hook rope bucket notebook envelope "
        "stamp card map pencil marker desk stool carpet rug spoon fork pan jar tray hat glove shirt jacket belt boot "
        "needle drum bell phone speaker tent string_set guitar_stand music_stand gig_bag end_pin capo strap"
    ),
    held_out=_words("lamp cup pillow basket candle folder poster ruler curtain bowl pot sock coat button camera cable"),
)
CITIES = Bank(
    training=_words(
        "Lisbon Bergen Ghent Turin Leeds Porto Graz Utrecht Lyon Cork Bilbao Dresden Basel Tampere Gdansk Aarhus Split "
        "Brno Seville Bristol Nantes Bologna Tartu Athens Vienna Madrid Prague Warsaw Dublin Geneva Munich Hamburg "
        "Berlin Naples Florence Venice Genoa Granada Malaga Toulouse Bordeaux Lille Nice Antwerp Bruges Paris London "
        "Rotterdam Eindhoven Cologne Bremen Stuttgart Zurich Lucerne Salzburg Linz Budapest Ljubljana Sofia Bucharest "
        "Riga Vilnius Tallinn Helsinki Stockholm Uppsala Copenhagen Odense Trondheim Reykjavik Edinburgh Cardiff York "
        "Exeter Sheffield Derby Limerick Toronto Montreal Denver Austin Seattle Portland Lima Washington Lincoln Quito "
        "Santiago Sydney Perth Auckland Wellington Kyoto Osaka Nairobi Cairo Tunis Oslo Glasgow Leipzig"
    ),
    held_out=_words("Valencia Zagreb Rennes Turku Trieste Boston Chicago Rome Oxford Cambridge"),
)
NAMES = Bank(
    training=_words(
        "Ana Tom Mei Jonas Priya Luca Sofia Omar Hanna Pedro Clara Ivan Nora Samuel Aisha Felix Marta Erik Lucy Diego "
        "Ingrid Paul Zoe Karim Elena Hugo Rosa David Emma Yusuf Julia Adam Sara Max Lena Carlos Alice Oscar Fatima "
        "Daniel Maria Kofi Anna Henrik Grace Mateo Irene Stefan Ruth Jakob Nina Ali Vera Olga Helen Bruno Tessa Andrei "
        "Mary James Rose Jack Jane"
    ),
    held_out=_words("Peter Simon Sarah Thomas Martin Joseph Victor Emily George Elizabeth"),
)

COUNTS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
