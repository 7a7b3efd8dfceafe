"""Public corpora as a table: what their file names tell. A new one is a row and a test with its names."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NamedTuple

from speechemo_cli.corpus.labels import EMOTIONS, canonical, emotion_in

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

RAVDESS = "ravdess"
SILENT = "video without sound (RAVDESS's 02-...)"

# What people add to a name when they resample, augment or copy a clip: `_16k`, `_noise`, ` (1)`.
_COPY = r"(?:[ _.-][a-z].*|[ _.-]?\(.*|[ _.-]\d+(?:\.\d+)?k.*|[ _.-]\d{4,5}(?:hz)?)?"


class Named(NamedTuple):
    """What a file's name tells.

    `label` is None where the corpus keeps its labels elsewhere. `left_out` says why the file is no clip;
    `video` that it holds the sound of a video, which the corpus may hold as a recording, too. The others as
    in `Clip`.
    """

    corpus: str
    label: str | None
    speaker: str | None = None
    gender: str | None = None
    intensity: int | None = None
    statement: int | str | None = None
    repetition: int | None = None
    song: bool = False
    video: bool = False
    left_out: str = ""


_GENDERS = {"m": "m", "f": "f", "w": "f", "male": "m", "female": "f", "01": "f", "02": "m"}


def _gender(told: Mapping[str, str]) -> str | None:
    return _GENDERS.get(told.get("gender", "").lower())


@dataclass(frozen=True)
class KnownCorpus:
    """One public corpus.

    Attributes
    ----------
    name : str
        As `Clip.corpus` has it.
    licence, citation : str
    name_pattern : str
        Of the file's name without suffix, whatever the case. Its groups are the fields of `Named`.
    folder_pattern : str
        Of the end of the path of its folder, with more groups; empty where the folders do not matter.
    labels : mapping of str to str
        By the code in the name; empty where it is a word.
    gender : callable
        Tells it from the groups; by default from the group `gender`.
    label : callable, optional
        Tells the code from the groups, where the group `label` does not.
    believes_folder : bool
        Others may use such names, too: where the folder names another emotion, it is none of this corpus.
    hint : str
        Where the labels are, if they are not in the names.
    page : str
        Where the corpus is to be had.
    """

    name: str
    licence: str
    citation: str
    name_pattern: str
    folder_pattern: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    gender: Callable[[Mapping[str, str]], str | None] = _gender
    label: Callable[[Mapping[str, str]], str] | None = None
    believes_folder: bool = False
    hint: str = ""
    page: str = ""

    def describe(self) -> str:
        """Say what it may be used for, whom to cite and where it is to be had."""
        return f"{self.name}\nlicence: {self.licence}\ncite: {self.citation}\nfrom: {self.page}"


def _odd_are_men(told: Mapping[str, str]) -> str:
    return "m" if int(told["speaker"]) % 2 else "f"


def _codes(pairs: str) -> dict[str, str]:
    return dict(pair.split("=") for pair in pairs.split())


CORPORA = (
    # modality-channel-emotion-intensity-statement-repetition-actor. Modality 01 is video with sound, 02 video
    # alone, 03 sound alone; channel 01 speech, 02 song.
    KnownCorpus(
        RAVDESS,
        "CC BY-NC-SA 4.0",
        "Livingstone SR, Russo FA (2018), PLoS ONE 13(5): e0196391",
        r"(?P<modality>0[123])-(?P<channel>0[12])-(?P<label>0[1-8])-(?P<intensity>0[12])-(?P<statement>0[12])"
        r"-(?P<repetition>0[12])-(?P<speaker>0[1-9]|1\d|2[0-4])",
        labels={f"{code:02d}": emotion for code, emotion in enumerate(EMOTIONS, start=1)},
        gender=_odd_are_men,
        page="https://zenodo.org/records/1188976",
    ),
    # OAF and YAF: an older and a younger woman; one file is called OA_bite_neutral.
    KnownCorpus(
        "tess",
        "CC BY-NC-ND 4.0",
        "Pichora-Fuller & Dupuis (2020), Toronto emotional speech set",
        r"(?P<speaker>OAF?|YAF)_(?:[a-z'-]+)_(?P<label>angry|disgust|fear|happy|neutral|ps|sad|(?:pleasant_)?surprised?)",
        gender=lambda _: "f",
        page="https://doi.org/10.5683/SP2/E8H2MF",
    ),
    # Actor 1001-1091, sentence, emotion, level; a few have X for XX.
    KnownCorpus(
        "crema-d",
        "ODbL 1.0",
        "Cao et al. (2014), IEEE Transactions on Affective Computing 5(4)",
        r"(?P<speaker>10\d\d)_(?P<statement>DFA|IEO|IOM|ITH|ITS|IWL|IWW|MTI|TAI|TIE|TSI|WSI)"
        r"_(?P<label>ANG|DIS|FEA|HAP|NEU|SAD)_(?:LO|MD|HI|XX?)",
        page="https://github.com/CheyneyComputerScience/CREMA-D",
    ),
    # Four men; AudioData/DC/a01.wav as it is given out, ALL/DC_a01.wav on Kaggle.
    KnownCorpus(
        "savee",
        "for research, on registration",
        "Haq & Jackson (2010), Machine Audition, ch. 17",
        r"(?P<speaker>DC|JE|JK|KL)_(?P<label>sa|su|a|d|f|h|n)\d\d",
        labels=_codes("a=angry d=disgust f=fearful h=happy n=neutral sa=sad su=surprised"),
        gender=lambda _: "m",
        page="http://kahlan.eps.surrey.ac.uk/savee/Database.html",
    ),
    KnownCorpus(
        "savee",
        "for research, on registration",
        "Haq & Jackson (2010), Machine Audition, ch. 17",
        r"(?P<label>sa|su|a|d|f|h|n)\d\d",
        r"(?P<speaker>DC|JE|JK|KL)",
        labels=_codes("a=angry d=disgust f=fearful h=happy n=neutral sa=sad su=surprised"),
        gender=lambda _: "m",
        page="http://kahlan.eps.surrey.ac.uk/savee/Database.html",
    ),
    # Speaker, text, emotion in German (L: Langeweile), version.
    KnownCorpus(
        "emo-db",
        "CC0 1.0",
        "Burkhardt et al. (2005), Interspeech",
        r"(?P<speaker>03|08|09|1[0-6])(?P<statement>a0[12457]|b0[1-3]|b09|b10)(?P<label>[WLEAFTN])[a-f]",
        labels=_codes("w=angry l=boredom e=disgust a=fearful f=happy t=sad n=neutral"),
        gender=lambda told: "m" if told["speaker"] in {"03", "10", "11", "12", "15"} else "f",
        page="http://emodb.bilderbar.info/index-1280.html",
    ),
    # Emotion in Italian, speaker, sentence.
    KnownCorpus(
        "emovo",
        "for research",
        "Costantini et al. (2014), LREC",
        r"(?P<label>dis|gio|neu|pau|rab|sor|tri)-(?P<speaker>(?P<gender>[fm])[123])-(?P<statement>[bdln]\d)",
        labels=_codes("dis=disgust gio=happy neu=neutral pau=fearful rab=angry sor=surprised tri=sad"),
        page="http://voice.fub.it/activities/corpora/emovo/",
    ),
    # anger/a01 (3).wav: emotion, utterance, speaker.
    KnownCorpus(
        "aesdd",
        "CC BY 4.0",
        "Vryzas et al. (2018), Journal of the Audio Engineering Society 66(6)",
        r"(?P<label>[adfhs])(?P<statement>\d\d) ?\((?P<speaker>[1-6])\)[ab]?",
        r"(?:anger|disgust|fear|happiness|sadness)",
        labels=_codes("a=angry d=disgust f=fearful h=happy s=sad"),
        believes_folder=True,
        page="http://m3c.web.auth.gr/research/aesdd-speech-emotion-recognition/",
    ),
    # The same on Hugging Face: 3_angry_0265. Its speakers are called as the packaged model has them.
    KnownCorpus(
        "aesdd",
        "CC BY 4.0",
        "Vryzas et al. (2018), Journal of the Audio Engineering Society 66(6)",
        r"(?P<speaker>[1-6])_(?P<label>angry|disgust|fearful|happy|sad)_\d{4}",
        believes_folder=True,
        page="http://m3c.web.auth.gr/research/aesdd-speech-emotion-recognition/",
    ),
    # Speaker, emotion, number; speakers as for AESDD.
    KnownCorpus(
        "nemo",
        "CC BY-NC-SA 4.0",
        "Christop (2024), LREC-COLING",
        r"(?P<speaker>[A-Z]{2}0)_(?P<label>anger|angry|fear|fearful|happiness|happy|neutral|sadness|sad|surprised?)"
        r"_\d{4}",
        page="https://huggingface.co/datasets/amu-cai/nEMO",
    ),
    # Speaker, emotion, sentence with repetition, session.
    KnownCorpus(
        "jl",
        "CC0 1.0",
        "James, Tian & Watson (2018), Interspeech",
        r"(?P<speaker>(?P<gender>female|male)[12])_(?P<label>[a-z]+)_(?P<statement>\d+)[ab]_[12]",
        page="https://www.kaggle.com/datasets/tli725/jl-corpus",
    ),
    # Speaker, number: 350 sentences an emotion, the same for each.
    KnownCorpus(
        "esd",
        "for research, on request",
        "Zhou et al. (2022), Speech Communication 137",
        r"(?P<speaker>00(?:0[1-9]|1\d|20))_00(?P<number>0(?!000)\d{3}|1[0-6]\d\d|17[0-4]\d|1750)",
        labels=_codes("0=neutral 1=angry 2=happy 3=sad 4=surprised"),
        label=lambda told: str((int(told["number"]) - 1) // 350),
        believes_folder=True,
        page="https://hltsingapore.github.io/ESD/",
    ),
    # M003/audio/angry/level_1/001.m4a; several cameras film the same speech.
    KnownCorpus(
        "mead",
        "for research, on request",
        "Wang et al. (2020), ECCV",
        r"(?P<statement>\d{3})",
        r"(?P<speaker>(?P<gender>[MW])\d{3})/(?:audio|video/(?P<view>\w+))"
        r"/(?P<label>angry|contempt|disgusted|fear|happy|neutral|sad|surprised)/level_[123]",
        page="https://wywu.github.io/projects/MEAD/MEAD.html",
    ),
    # The labels are in dialog/EmoEvaluation/*.txt.
    KnownCorpus(
        "iemocap",
        "for research, on request",
        "Busso et al. (2008), Language Resources and Evaluation 42(4)",
        r"(?P<speaker>Ses0[1-5])[FM]_(?:impro|script)\w+_(?P<gender>[FM])\d{3}",
        hint="IEMOCAP has its labels in dialog/EmoEvaluation, not in the names of its clips",
        page="https://sail.usc.edu/iemocap/iemocap_release.htm",
    ),
    # Gender, speaker, emotion, number.
    KnownCorpus(
        "shemo",
        "for research",
        "Mohamad Nezami et al. (2019), Language Resources and Evaluation 53(1)",
        r"(?P<speaker>(?P<gender>[FM])\d\d)(?P<label>[AFHNSW])\d\d",
        labels=_codes("a=angry f=fearful h=happy n=neutral s=sad w=surprised"),
        believes_folder=True,
        page="https://github.com/mansourehk/ShEMO",
    ),
    # Actor, emotion in French, intensity, sentence.
    KnownCorpus(
        "cafe",
        "CC BY-NC-SA 4.0",
        "Gournay, Lahaie & Lefebvre (2018), ACM MMSys",
        r"(?P<speaker>0[1-9]|1[0-2])-(?P<label>[CDJNPST])-(?P<intensity>[12])-(?P<statement>[1-6])",
        labels=_codes("c=angry d=disgust j=happy n=neutral p=fearful s=surprised t=sad"),
        gender=_odd_are_men,
        believes_folder=True,
        page="https://zenodo.org/records/1478765",
    ),
    # Gender, speaker with name, sentence, emotion, take.
    KnownCorpus(
        "subesco",
        "CC BY 4.0",
        "Sultana et al. (2021), PLoS ONE 16(4): e0250173",
        r"(?P<speaker>(?P<gender>[FM])_\d\d)_[A-Z]+_S_(?P<statement>\d+)"
        r"_(?P<label>ANGRY|DISGUST|FEAR|HAPPY|NEUTRAL|SAD|SURPRISE)_(?P<repetition>\d)",
        page="https://zenodo.org/records/4526477",
    ),
    # Emotion, voice (F, M, C: child), word list, word; who spoke is not told.
    KnownCorpus(
        "mesd",
        "CC BY 4.0",
        "Duville, Alonso-Valerdi & Ibarra-Zarate (2021), IEEE EMBC",
        r"(?P<label>Anger|Disgust|Fear|Happiness|Neutral|Sadness)_(?P<gender>[FMC])_[AB]_.+",
        page="https://doi.org/10.17632/cy34mh68j9",
    ),
    # Speaker, file, emotion with number.
    KnownCorpus(
        "urdu",
        "for research",
        "Latif et al. (2018), FIT",
        r"(?P<speaker>S(?P<gender>[FM])\d+)_F\d+_(?P<label>[AHNS])\d+",
        labels=_codes("a=angry h=happy n=neutral s=sad"),
        page="https://github.com/siddiquelatif/URDU-Dataset",
    ),
    # Speaker, emotion in Turkish, word.
    KnownCorpus(
        "turev-db",
        "for research",
        "Canpolat et al. (2020), SLTU-CCURL",
        r"(?P<speaker>\d{4})_(?P<label>kz|mt|sk|uz)_[a-z]+",
        labels=_codes("kz=angry mt=happy sk=calm uz=sad"),
        believes_folder=True,
        page="https://github.com/Xeonen/TurEV-DB",
    ),
    # Speaker, gender, age, word, level of emotion, number; a level is no emotion.
    KnownCorpus(
        "baved",
        "for research",
        "Aouf (2019), Basic Arabic Vocal Emotions Dataset",
        r"(?P<speaker>\d+)-(?P<gender>[mf])-\d+-(?P<statement>[0-6])-(?P<label>[012])-\d+",
        labels=_codes("0=low 1=neutral 2=high"),
        page="https://github.com/40uf411/Basic-Arabic-Vocal-Emotions-Dataset",
    ),
    # Emotion with folder, sentence, repetition, gender (01 woman, 02 man), speaker.
    KnownCorpus(
        "ased",
        "for research",
        "Retta et al. (2023), ACM TALLIP 22(5)",
        r"(?P<label>[afhns])\d-(?P<statement>\d\d)-(?P<repetition>0[12])-(?P<gender>0[12])-(?P<speaker>\d\d)",
        labels=_codes("a=angry f=fearful h=happy n=neutral s=sad"),
        believes_folder=True,
        page="https://github.com/Ethio2021/ASED_V1",
    ),
)
# By the names that clips have as their corpus; a folder of that name may hold other clips.
LICENCES = {row.name: row.licence for row in CORPORA}
BY_NAME = {row.name: row for row in CORPORA}


# Compiled when they are needed: it takes a tenth of a second for all.
@cache
def _any_name() -> re.Pattern[str]:
    """All rows at once; the group that matched tells the row."""
    rows = (re.sub(r"\?P<\w+>", "?:", f"({row.name_pattern})") + _COPY for row in CORPORA)
    return re.compile("|".join(rows), re.IGNORECASE)


@cache
def _patterns(row: int) -> tuple[re.Pattern[str], re.Pattern[str] | None]:
    name, folders = CORPORA[row].name_pattern, CORPORA[row].folder_pattern
    return (
        re.compile(f"(?:{name}){_COPY}", re.IGNORECASE),
        re.compile(f"(?:^|/){folders}$", re.IGNORECASE) if folders else None,
    )


_emotion_of_folder = lru_cache(maxsize=1024)(emotion_in)


def recognise(path: str) -> Named | None:
    """Tell what a file is by its name, and where the corpus needs it by its folders.

    Parameters
    ----------
    path : str
        Nothing is opened.

    Returns
    -------
    Named or None
        None where the name is that of no corpus in the table.
    """
    folder, _, name = path.replace(os.sep, "/").rpartition("/")
    stem = os.path.splitext(name)[0]
    first = _any_name().fullmatch(stem)
    if first is None or first.lastindex is None:
        return None
    for i in range(first.lastindex - 1, len(CORPORA)):
        name_pattern, in_folders = _patterns(i)
        match = name_pattern.fullmatch(stem)
        if match is None:
            continue
        told = match.groupdict()
        if in_folders is not None:
            around = in_folders.search(os.path.abspath(folder).replace(os.sep, "/"))
            if around is None:
                continue
            told.update(around.groupdict())
        named = _read(CORPORA[i], {key: value for key, value in told.items() if value is not None})
        if not CORPORA[i].believes_folder or _emotion_of_folder(folder.rpartition("/")[2]) in (
            None,
            named.label,
        ):
            return named
    return None


def hint_for(corpora: set[str]) -> str:
    """Say where the labels of some corpora are, if they are not in the names."""
    return ". ".join(row.hint for row in CORPORA if row.hint and row.name in corpora)


def _read(row: KnownCorpus, told: dict[str, str]) -> Named:
    code = row.label(told) if row.label else told.get("label")
    statement = told.get("statement")
    return Named(
        corpus=row.name,
        label=None if code is None else row.labels.get(code.lower()) or canonical(code),
        speaker=_speaker(row.name, told),
        gender=row.gender(told),
        intensity=_number(told.get("intensity")),
        statement=int(statement) if statement and statement.isdigit() else statement,
        repetition=_number(told.get("repetition")),
        song=told.get("channel") == "02",
        video=told.get("modality") == "01" or told.get("view") == "front",
        left_out=_left_out(told),
    )


def _left_out(told: dict[str, str]) -> str:
    if told.get("modality") == "02":
        return SILENT
    return "" if told.get("view", "front") == "front" else "the same speech from another camera (MEAD)"


def _number(code: str | None) -> int | None:
    return None if code is None else int(code)


def _speaker(corpus: str, told: dict[str, str]) -> str | None:
    speaker = told.get("speaker")
    if corpus == "tess" and speaker:
        return speaker.upper()[0] + "AF"
    if corpus == "iemocap" and speaker:  # two in a session
        return f"{speaker}{told['gender'].upper()}"
    # As in the lists that the packaged model was trained with, so that it knows them again.
    return f"{corpus}-{speaker}" if corpus in ("aesdd", "nemo") else speaker
