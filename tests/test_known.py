"""Public corpora: for each row of the table, real names of the corpus and what they tell."""

from __future__ import annotations

import pytest

from speechemo_cli.corpus import EMOTIONS
from speechemo_cli.corpus.clips import Clip
from speechemo_cli.corpus.known import BY_NAME, Named, recognise

# corpus, name, and the label, the speaker and the gender that it tells
NAMES = [
    ("ravdess", "Actor_12/03-01-05-02-01-01-12.wav", "angry", "12", "f"),
    ("ravdess", "Actor_01/03-02-04-01-02-02-01.wav", "sad", "01", "m"),
    ("ravdess", "03-01-08-01-01-01-24_16k.wav", "surprised", "24", "f"),
    ("ravdess", "03-01-08-01-01-01-24 (1).wav", "surprised", "24", "f"),
    ("ravdess", "03-01-08-01-01-01-23_noise.wav", "surprised", "23", "m"),
    ("ravdess", "Actor_03/01-01-02-01-01-01-03.mp4", "calm", "03", "m"),
    ("ravdess", "happy/03-01-06-01-01-01-04.mp3", "fearful", "04", "f"),  # the name counts, not the folder
    ("tess", "OAF_Pleasant_surprise/OAF_back_ps.wav", "surprised", "OAF", "f"),
    ("tess", "YAF_pleasant_surprised/YAF_bath_ps.wav", "surprised", "YAF", "f"),
    ("tess", "OAF_Fear/OAF_bite_fear.wav", "fearful", "OAF", "f"),
    ("tess", "YAF_fear/yaf_youth_fear.wav", "fearful", "YAF", "f"),
    ("tess", "OAF_neutral/OA_bite_neutral.wav", "neutral", "OAF", "f"),
    ("tess", "YAF_angry/YAF_dog_angry.wav", "angry", "YAF", "f"),
    ("crema-d", "AudioWAV/1001_DFA_ANG_XX.wav", "angry", "1001", None),
    ("crema-d", "1091_WSI_SAD_XX.wav", "sad", "1091", None),
    ("crema-d", "1040_ITH_SAD_X.wav", "sad", "1040", None),
    ("crema-d", "1022_IEO_FEA_HI.flv.wav", "fearful", "1022", None),
    ("savee", "ALL/DC_a01.wav", "angry", "DC", "m"),
    ("savee", "ALL/KL_su15.wav", "surprised", "KL", "m"),
    ("savee", "AudioData/JE/sa05.wav", "sad", "JE", "m"),
    ("savee", "DC/n30.wav", "neutral", "DC", "m"),
    ("emo-db", "wav/03a01Fa.wav", "happy", "03", "m"),
    ("emo-db", "08a07La.wav", "boredom", "08", "f"),
    ("emo-db", "16b10Td.wav", "sad", "16", "f"),
    ("emo-db", "03a01Wa.wav", "angry", "03", "m"),
    ("emo-db", "11b03Ac.wav", "fearful", "11", "m"),
    ("emovo", "f1/rab-f1-b1.wav", "angry", "f1", "f"),
    ("emovo", "m3/sor-m3-n5.wav", "surprised", "m3", "m"),
    ("emovo", "gio-m2-l4.wav", "happy", "m2", "m"),
    ("aesdd", "anger/a01 (1).wav", "angry", "aesdd-1", None),
    ("aesdd", "sadness/s05 (3)b.wav", "sad", "aesdd-3", None),
    ("aesdd", "3_fearful_0123.ogg", "fearful", "aesdd-3", None),
    ("nemo", "EB0_anger_0001.wav", "angry", "nemo-EB0", None),
    ("nemo", "SM0_surprised_0042.ogg", "surprised", "nemo-SM0", None),
    ("jl", "JL(wav+txt)/female1_angry_10a_1.wav", "angry", "female1", "f"),
    ("jl", "male2_apologetic_7b_2.wav", "apologetic", "male2", "m"),
    ("esd", "ESD/0011/Angry/train/0011_000371.wav", "angry", "0011", None),
    ("esd", "ESD/0020/Surprise/0020_001750.wav", "surprised", "0020", None),
    ("esd", "0001_000001.wav", "neutral", "0001", None),
    ("esd", "0001_000351.wav", "angry", "0001", None),
    ("esd", "0001_000701.wav", "happy", "0001", None),
    ("esd", "0001_001400.wav", "sad", "0001", None),
    ("mead", "M003/audio/contempt/level_1/001.m4a", "contempt", "M003", "m"),
    ("mead", "W040/audio/disgusted/level_3/030.m4a", "disgust", "W040", "f"),
    ("mead", "M003/video/front/angry/level_2/012.mp4", "angry", "M003", "m"),
    ("iemocap", "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav", "", "Ses01F", "f"),
    ("iemocap", "Ses05M_script03_2b_M010.wav", "", "Ses05M", "m"),
    ("iemocap", "Ses05F_script03_2_M010.wav", "", "Ses05M", "m"),
    ("shemo", "female/F01A05.wav", "angry", "F01", "f"),
    ("shemo", "male/M43W02.wav", "surprised", "M43", "m"),
    ("shemo", "M02F01.wav", "fearful", "M02", "m"),
    ("cafe", "Colère/Fort/01-C-2-1.wav", "angry", "01", "m"),
    ("cafe", "12-T-1-6.aiff", "sad", "12", "f"),
    ("subesco", "F_01_OISHI_S_10_ANGRY_1.wav", "angry", "F_01", "f"),
    ("subesco", "M_08_ARIF_S_3_SURPRISE_5.wav", "surprised", "M_08", "m"),
    ("mesd", "Anger_C_A_abajo.wav", "angry", None, None),
    ("mesd", "Happiness_F_B_hoy.wav", "happy", None, "f"),
    ("urdu", "Angry/SM1_F10_A010.wav", "angry", "SM1", "m"),
    ("urdu", "Sad/SF2_F3_S033.wav", "sad", "SF2", "f"),
    ("turev-db", "Angry/1157_kz_beste.wav", "angry", "1157", None),
    ("turev-db", "Calm/1234_sk_algi.wav", "calm", "1234", None),
    ("turev-db", "Happy/1358_mt_acik.wav", "happy", "1358", None),
    ("baved", "0/0-m-21-0-1-105.wav", "neutral", "0", "m"),
    ("baved", "3/102-f-40-3-2-4.wav", "high", "102", "f"),
    ("ased", "05Angry/a5-03-01-02-50.wav", "angry", "50", "m"),
    ("ased", "S4-04-02-01-29.wav", "sad", "29", "f"),
]


def recognised(path: str) -> Named:
    named = recognise(path)
    assert named is not None
    return named


def test_corpora_all_have_names_here() -> None:
    assert list(BY_NAME) == list(dict.fromkeys(corpus for corpus, *_ in NAMES))
    assert all(row.licence and row.citation for row in BY_NAME.values())


@pytest.mark.parametrize(("corpus", "path", "label", "speaker", "gender"), NAMES)
def test_recognise_reads_real_names(
    corpus: str, path: str, label: str, speaker: str | None, gender: str | None
) -> None:
    named = recognised(path)
    clip = named.clip
    assert (clip.corpus, clip.label, clip.speaker, clip.gender) == (corpus, label, speaker, gender)
    assert not named.left_out


@pytest.mark.parametrize(("code", "emotion"), list(enumerate(EMOTIONS, start=1)))
def test_recognise_reads_every_field_of_ravdess(code: int, emotion: str) -> None:
    named = recognised(f"any/where/03-01-{code:02d}-02-01-02-12.xyz")
    assert named == Named(Clip("", emotion, "12", "f", 2, 1, 2, corpus="ravdess"))
    song = Clip("", "sad", "07", "m", 1, 2, 1, song=True, corpus="ravdess")
    assert recognised("03-02-04-01-02-01-07.wav") == Named(song)


def test_recognise_tells_sentence_repetition_and_intensity_where_the_name_does() -> None:
    assert recognised("1001_IEO_ANG_LO.wav").clip.statement == "IEO"
    assert recognised("03a01Fa.wav").clip.statement == "a01"
    subesco, cafe = recognised("F_01_OISHI_S_10_ANGRY_2.wav").clip, recognised("01-C-2-5.wav").clip
    assert (subesco.statement, subesco.repetition) == (10, 2)
    assert (cafe.intensity, cafe.statement) == (2, 5)


def test_recognise_leaves_out_what_is_no_recording_of_its_own() -> None:
    assert "video without sound" in recognised("02-01-05-02-01-01-12.mp4").left_out
    assert "another camera" in recognised("M003/video/left_30/angry/level_1/001.mp4").left_out
    video, recording = recognised("01-01-05-02-01-01-12.mp4"), recognised("03-01-05-02-01-01-12.wav")
    assert video.video
    assert video._replace(video=False) == recording


@pytest.mark.parametrize(
    "path",
    [
        *("", "clip.wav", "angry/001.wav", "OAF_angry.wav", "0011_000000.wav", "0011_001751.wav"),
        *("03-01-05-02-01-01.wav", "03-01-05-02-01-01-12-01.wav", "x03-01-05-02-01-01-12.wav"),
        *("03-03-05-02-01-01-12.wav", "03-01-09-02-01-01-12.wav", "03-01-05-02-01-01-25.wav"),
        *("3-1-5-2-1-1-12.wav", "03-01-05-02-01-01-12/clip.wav"),
        "angry/a01.wav",  # SAVEE's name, but not in the folder of one of its speakers
        "session/s01 (1).wav",  # AESDD's name, but a Windows copy
        "happy/F01A05.wav",  # ShEMO's name, but it would be angry there
        "04a01Fa.wav",  # no such speaker
    ],
)
def test_recognise_knows_no_other_names(path: str) -> None:
    assert recognise(path) is None
