"""The demo calls as data: who says what in which language.

In each call the caller changes language. Every sentence is held out from training by its hash
(`held_out_split`), every voice by `HELD_OUT`; `synthesise_demo_calls` refuses one that isn't.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the caller."""

    language: str
    text: str


@dataclass(frozen=True, slots=True)
class DemoCall:
    """A call of 20 to 30 s; `voices` names one speaker per language."""

    name: str
    voices: dict[str, str]
    turns: tuple[Turn, ...]

    @property
    def title(self) -> str:
        """As the demo announces it."""
        first, *rest = (word.capitalize() for word in self.name.split("-"))
        return f"{first} languages" if rest == ["Languages"] else f"{first}, then {rest[0]}"


def _turns(*spoken: str) -> tuple[Turn, ...]:
    return tuple(Turn(line[:5], line[6:]) for line in spoken)


_MALE = {
    "en-US": "am_michael",
    "es-ES": "em_alex",
    "fr-FR": "ff_siwis*0.60+am_michael*0.40",
    "it-IT": "im_nicola",
    "pt-BR": "pm_alex",
}
_FEMALE = {
    "en-US": "af_bella",
    "es-ES": "ef_dora*0.65+af_bella*0.35",
    "fr-FR": "ff_siwis*0.65+af_bella*0.35",
    "it-IT": "if_sara*0.65+af_bella*0.35",
    "pt-BR": "pf_dora*0.65+af_bella*0.35",
}

DEMO_CALLS = (
    DemoCall(
        "english-spanish",
        _FEMALE,
        _turns(
            "en-US Good evening. Could we sit inside?",
            "en-US I'd like a table for four tomorrow night, please.",
            "en-US Can we speak Spanish?",
            "es-ES ¿Hay sitio para dos el viernes a las ocho menos cuarto?",
            "es-ES Me gustaría tomar un zumo de naranja.",
            "es-ES Mi hijo no puede comer marisco.",
            "es-ES Mi número es el siete nueve cuatro seis cinco nueve cuatro.",
            "en-US Thank you, see you Thursday.",
        ),
    ),
    DemoCall(
        "french-english",
        _MALE,
        _turns(
            "fr-FR Je voudrais réserver une table pour cinq le trois octobre.",
            "fr-FR Pardon, je voulais dire lundi à onze heures.",
            "fr-FR Je peux avoir le risotto sans fromage?",
            "en-US I'd like to make a reservation for five people tomorrow.",
            "en-US No, sorry, at ten fifteen.",
            "en-US I'd like the soup and an apple juice.",
            "en-US My name is Robert.",
            "fr-FR C'est tout, merci.",
        ),
    ),
    DemoCall(
        "italian-english",
        _MALE,
        _turns(
            "it-IT Siamo in due e vorremmo cenare domani a pranzo.",
            "it-IT Scusi, volevo dire venerdì alle sei.",
            "it-IT Prendo le verdure e gli spaghetti.",
            "en-US Is there parking nearby?",
            "en-US Is there a table for three tomorrow night?",
            "en-US My phone number is five four six six one eight.",
            "it-IT Come arrivo dalla stazione?",
            "it-IT Sono allergico al formaggio.",
        ),
    ),
    DemoCall(
        "portuguese-spanish",
        _FEMALE,
        _turns(
            "pt-BR Oi. É para duas pessoas, amanhã à noite.",
            "pt-BR Desculpe, eu quis dizer domingo às duas e trinta.",
            "pt-BR Minha mulher tem alergia a glúten.",
            "es-ES Sí. Es para cuatro personas, mañana a la una.",
            "es-ES ¿Hay aparcamiento cerca?",
            "es-ES Quería el salmón y una botella de vino tinto.",
            "pt-BR Tudo bem. Posso pagar com cartão?",
            "pt-BR Está bem.",
        ),
    ),
    DemoCall(
        "spanish-french",
        _MALE,
        _turns(
            "es-ES Buenos días. ¿Están libres el miércoles?",
            "es-ES No, he dicho nueve, no diez.",
            "es-ES Queremos tres pizzas y una copa de vino blanco.",
            "fr-FR On peut parler espagnol?",
            "fr-FR Nous sommes sept et nous voulons dîner ce soir.",
            "fr-FR Nous serons deux, pas sept.",
            "fr-FR Bonsoir. Nous voudrions une table en terrasse, s'il vous plaît.",
            "es-ES Gracias, adiós.",
        ),
    ),
    DemoCall(
        "five-languages",
        _FEMALE,
        _turns(
            "en-US I'd like the risotto and a lemonade.",
            "en-US Sorry, I meant Friday at a quarter past one.",
            "it-IT Buonasera. Un tavolo per sei, per favore.",
            "it-IT Siete liberi domani alle dieci in punto?",
            "fr-FR Je voudrais le poulet avec du riz et une bouteille d'eau.",
            "fr-FR Oui, c'est ça.",
            "es-ES ¿Puede ser una ensalada sin queso?",
            "pt-BR Pode ser um hambúrguer sem carne?",
            "pt-BR Está bem.",
        ),
    ),
)
