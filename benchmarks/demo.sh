#!/bin/sh
# The commands, one after the other: demo.sh [FOLDER]. Real clips if FOLDER holds RAVDESS, else
# synthetic voices.
set -eu
data=${1:-data}

say() { if [ -t 1 ]; then printf '\n\033[1m%s\033[0m\n' "$*"; else printf '\n%s\n' "$*"; fi; }
run() {
    say "\$ $*"
    "$@"
}

if find -L "$data" -name '03-01-0[1-8]-0[12]-0[12]-0[12]-[0-2][0-9].*' 2>/dev/null | grep -q .; then
    say "Data: the RAVDESS recordings in $data"
else
    say "Data: SYNTHETIC voices in demo/, because $data holds no RAVDESS clip (see data/README.md)."
    echo "The numbers below show that the commands work. They say nothing about people."
    data=demo
    run speechemo synth demo
fi

run speechemo extract "$data" --features mfcc --format table
run speechemo train "$data" --version v2 --format table
run speechemo evaluate "$data" --model v2 --plot models/v2-confusion.png --format table
# One clip an emotion, from the first actor there.
set -- $(find -L "$data" -name '03-01-0[1-8]-01-01-01-*' | sort -t- -k3,3 -k7,7 | awk -F- '!seen[$3]++')
run speechemo predict "$@" --model v2 --format table
say "The same clips with the packaged model (v3, which was trained on RAVDESS among others)"
run speechemo predict "$@" --format table

say "Made: models/v2.keras, models/v2.tflite (for LiteRT), models/v2.png (learning curve), models/v2-confusion.png"
