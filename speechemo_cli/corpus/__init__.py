"""Which clips, which speaker, which label.

What all modules share is here: the emotions, their one order, and the words for them.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# The order of RAVDESS's emotion codes 01 ... 08 (Livingstone & Russo 2018, table 1).
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")

# More classes than any corpus of emotions, fewer than a folder for each file.
MAX_LABELS = 1000
_MAX_LABEL_LENGTH = 100

# The columns of docs/formats.md, beside which every label has one of its own; and what is no label.
RESERVED = frozenset(
    {
        *("uncertain", "path", "status", "label", "confidence", "duration_s", "warnings", "error", "channel"),
        *("sha256", "key", "start_s", "end_s", "speech_share"),
    }
)

# By label, words for it: English with abbreviations and misspellings that occur in public data sets, then
# German, French, Spanish, Italian, Portuguese, Polish, Greek, Turkish, Russian, Chinese, Hindi. Words that
# are common for something else are left out (Hindi `dar`, French `sur`). The labels behind the eight are
# those that public corpora have beside them.
_WORDS = {
    "neutral": """neutral neutrality neu ntr netural nuetral neutal neutrl
        neutralität neutre neutro neutra neutrale neutralny neutralna neutralne neutralnie neutralność
        ουδέτερο ουδέτερη ουδετερότητα nötr tarafsız нейтральный нейтральная нейтрально нейтральность
        neytralno 中性 中立 平淡 तटस्थ सामान्य tatasth""",
    "calm": """calm calmness calmly cal relaxed peaceful ruhe ruhig gelassen calme calma calmo tranquilo
        tranquila tranquilidad tranquillità serenità spokój spokojny spokojna ηρεμία ήρεμο ήρεμη sakin
        спокойствие спокойный спокойная спокойно spokoyno 平静 冷静 शांत shaant""",
    "happy": """happy happiness hap happpy hapy happines happyness joy joyful joyous cheerful glad delighted
        freude fröhlich froh glücklich joie joyeux joyeuse heureux heureuse bonheur felicidad feliz alegría
        alegre gioia felicità felice allegria felicidade alegria radość radosny radosna szczęście szczęśliwy
        wesoły χαρά χαρούμενος ευτυχία mutlu mutluluk sevinç neşe радость радостный радостная счастье
        счастливый счастливая весёлый radost 快乐 高兴 开心 喜悦 快樂 高興 開心 खुश खुशी khushi khush""",
    "sad": """sad sadness sadnes sadnss sorrow sorrowful unhappy unhappiness grief trauer traurig traurigkeit
        tristesse triste tristeza tristezza smutek smutny smutna λύπη λυπημένος θλίψη üzgün üzüntü hüzün
        грусть грустный грустная грустно печаль печальный печально grust pechal 悲伤 悲傷 伤心 傷心 难过 難過
        दुख दुखी उदास dukh dukhi udaas""",
    "angry": """angry anger ang angray angery angrily angri agry rage fury furious wut wütend ärger aerger
        ärgerlich zorn zornig colère colere colérique fâché enojo enojado enojada enfado enfadado enfadada
        ira rabia rabbia arrabbiato arrabbiata collera raiva zangado zangada złość zły zła gniew θυμός οργή
        θυμωμένος kızgın kızgınlık öfke öfkeli sinirli злость злой злая гнев гневный zlost gnev 愤怒 憤怒 生气
        生氣 गुस्सा क्रोध gussa krodh""",
    "fearful": """fearful fear fea fearfull fearfulness ferful feaful scared afraid terrified terror angst
        ängstlich aengstlich furcht peur effrayé miedo temor paura spavento medo assustado strach
        przestraszony lęk φόβος φοβισμένος korku korkmuş страх страшно испуг испуганный strakh 恐惧 恐懼 害怕
        惊恐 डर भय""",
    "disgust": """disgust disgusted disgusting disg digust disguist disgus dusgust dis ekel angeekelt dégoût
        degout dégoûté asco repugnancia disgusto disgustato schifo nojo aversão wstręt obrzydzenie odraza
        αηδία tiksinti iğrenme отвращение отвращения брезгливость otvrashchenie 厌恶 厭惡 恶心 噁心 घृणा
        ghrina""",
    "surprised": """surprised surprise surprized surprize surp superise suprise suprised supprise
        surpise surprisd surpirse astonished astonishment ps pleasant_surprise pleasant_surprised
        pleasantly_surprised überraschung ueberraschung überrascht ueberrascht erstaunen surpris étonnement
        sorpresa sorprendido sorprendida sorpreso stupore surpresa surpreso surpreendido zaskoczenie
        zdziwienie zaskoczony έκπληξη έκπληκτος şaşkın şaşkınlık şaşırma şaşırmış удивление удивленный
        удивлённый удивленная удивленно udivlenie 惊讶 驚訝 惊喜 驚喜 吃惊 आश्चर्य हैरानी aashcharya""",
    "boredom": """boredom bored boring bor langeweile gelangweilt ennui ennuyé aburrimiento aburrido noia
        annoiato tédio nuda znudzenie znudzony πλήξη скука 无聊 無聊 ऊब""",
    "contempt": "contempt contemptuous verachtung mépris desprecio disprezzo desprezo pogarda презрение 轻蔑",
    "excited": "excited excitement excitedness exc aufgeregt excité emocionado entusiasmo 兴奋 興奮",
    "frustrated": "frustrated frustration fru frustriert frustré frustrado frustrato",
    "anxious": "anxious anxiety anxiousness anxiété ansiedad ansia ansiedade 焦虑",
    "amused": "amused amusement belustigt amusé divertido divertito",
}
# What makes `not_angry` something else than `angry`.
_NEGATIONS = frozenset(["no", "not", "non", "un", "without", "nicht", "kein", "pas", "sin", "ohne", "nie"])
_PLAIN = str.maketrans("ıłøđ", "ilod")  # letters that no decomposition takes the stroke or dot from


def _plain(text: str) -> str:
    """Fold case and accents, however they were encoded, so that `Ärger`, `ÄRGER` and `arger` are one."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    letters = (c for c in unicodedata.normalize("NFKD", decomposed) if unicodedata.category(c)[0] != "M")
    return "".join(letters).translate(_PLAIN)


_LABELS = {_plain(word): label for label, words in _WORDS.items() for word in words.split()}
_TOKEN = re.compile(r"[^\W\d_]+")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")


@lru_cache(maxsize=4096)
def canonical(word: str) -> str:
    """Return the label for a word, trimmed, in lower case and NFC: `Wut` -> `angry`, ` Awe ` -> `awe`."""
    label = unicodedata.normalize("NFC", word.strip().lower())
    return _LABELS.get("_".join(_plain(label).split()), label)


@lru_cache(maxsize=4096)
def emotion_in(name: str) -> str | None:
    """Find the one emotion that the words of a name tell: `01_angry`, `OAF_Pleasant_surprise`, `wut-3`.

    None where no word tells one, words tell several, or one takes it back (`not_angry`).
    """
    whole = _LABELS.get("_".join(_plain(name).split()))
    if whole is not None:
        return whole
    words = _TOKEN.findall(_plain(_HUMP.sub("_", name)))
    found = {_LABELS[word] for word in words if word in _LABELS}
    return found.pop() if len(found) == 1 and _NEGATIONS.isdisjoint(words) else None


def is_label(word: str) -> bool:
    """Whether a word can be a label: it fits on one line of a table, and stands for nothing else there."""
    return 0 < len(word) <= _MAX_LABEL_LENGTH and word.isprintable() and word not in RESERVED


def ordered(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct labels in the one order: the eight emotions first, others by the alphabet."""
    distinct = set(labels)
    known = [label for label in EMOTIONS if label in distinct]
    return (*known, *sorted(distinct - set(EMOTIONS)))
