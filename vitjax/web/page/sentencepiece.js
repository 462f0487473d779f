// SentencePiece, https://arxiv.org/abs/1808.06226: unigram and byte-pair
// models, read from the published file. It gives the ids of the C++ library.

const NORMAL = 1, USER_DEFINED = 4, BYTE = 6; // types of pieces
const BPE = 2; // of the types of models
const SPACE = "\u2581";
const UNKNOWN_PENALTY = 10;

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", {ignoreBOM: true});

export class SentencePiece {
  // bytes: a `.model` file, a message of Protocol Buffers.
  constructor(bytes) {
    const model = [...fields(bytes)];
    const trainer = new Map(fields(last(model, 2)));
    const normalizer = new Map(fields(last(model, 3)));
    this.isBpe = trainer.get(3) === BPE;
    this.unknown = trainer.get(40) ?? 0;
    this.end = signed(trainer.get(42) ?? 2);
    this.padding = signed(trainer.get(43) ?? -1);
    this.suffixSpace = Boolean(trainer.get(24));
    this.bytesForUnknown = Boolean(trainer.get(35));
    this.addSpace = (normalizer.get(3) ?? 1) !== 0;
    this.trimSpaces = (normalizer.get(4) ?? 1) !== 0;
    this.escapeSpaces = (normalizer.get(5) ?? 1) !== 0;
    this.rules = readRules(normalizer.get(2));
    this.readPieces(model.filter(([n]) => n === 1).map(([, x]) => x));
  }

  readPieces(records) {
    this.pieces = new Map(); // piece -> {id, score, isWhole}
    this.bytePieces = new Map();
    this.userDefined = [];
    const scores = [];
    records.forEach((record, id) => {
      const piece = new Map(fields(record));
      const text = decoder.decode(piece.get(1) ?? new Uint8Array());
      const type = piece.get(3) ?? NORMAL;
      const score = float(piece.get(2));
      if (type === NORMAL) scores.push(score);
      if (type === BYTE) this.bytePieces.set(parseInt(text.slice(3), 16), id);
      if (type === USER_DEFINED) this.userDefined.push(text);
      if (type === NORMAL || type === USER_DEFINED) {
        this.pieces.set(text, {id, score, isWhole: type === USER_DEFINED});
      }
    });
    const least = scores.reduce((x, y) => Math.min(x, y), Infinity);
    this.largest = scores.reduce((x, y) => Math.max(x, y), -Infinity);
    this.unknownScore = Math.fround(least - UNKNOWN_PENALTY);
    this.userDefined.sort((x, y) => y.length - x.length);
    this.longest = 0;
    for (const text of this.pieces.keys()) {
      this.longest = Math.max(this.longest, [...text].length);
    }
  }

  encode(text) {
    const letters = Array.from(this.normalize(text));
    const found = this.isBpe ? this.merge(letters) : this.best(letters);
    const ids = [];
    let wasUnknown = false;
    for (const piece of found) {
      const known = this.pieces.get(piece);
      if (known) {
        ids.push(known.id);
      } else if (this.bytesForUnknown) {
        for (const byte of encoder.encode(piece)) {
          ids.push(this.bytePieces.get(byte));
        }
      } else if (!wasUnknown) {
        ids.push(this.unknown); // neighbours are one unknown piece
      }
      wasUnknown = !known;
    }
    return ids;
  }

  normalize(text) {
    const bytes = encoder.encode(text);
    let out = "";
    let start = 0;
    let prefix;
    if (this.trimSpaces) {
      while (start < bytes.length) {
        prefix = this.prefix(bytes, start);
        if (prefix.text !== " ") break;
        start += prefix.length;
      }
    }
    if (start === bytes.length) return "";
    const space = this.escapeSpaces ? SPACE : " ";
    if (this.addSpace && !this.suffixSpace) out += space;
    let afterSpace = this.trimSpaces;
    while (start < bytes.length) {
      prefix = this.prefix(bytes, start);
      start += prefix.length;
      let part = prefix.text;
      while (afterSpace && part.startsWith(" ")) part = part.slice(1);
      if (part) {
        out += part.replaceAll(" ", space);
        afterSpace = part.endsWith(" ");
      }
      afterSpace &&= this.trimSpaces;
    }
    if (this.trimSpaces) {
      while (out.endsWith(space)) out = out.slice(0, -space.length);
    }
    return this.addSpace && this.suffixSpace ? out + space : out;
  }

  // What the rules make of the text that starts here, and its bytes.
  prefix(bytes, start) {
    for (const text of this.userDefined) {
      const own = encoder.encode(text);
      if (own.every((x, i) => bytes[start + i] === x)) {
        return {text, length: own.length};
      }
    }
    const found = this.rules?.(bytes, start);
    if (found) return found;
    const first = bytes[start];
    const length = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    const text = decoder.decode(bytes.subarray(start, start + length));
    return {text, length};
  }

  // The pieces with the largest sum of scores. Sums are rounded to 32 bits, as
  // in the library, because ties depend on it.
  best(letters) {
    const ends = letters.map(() => null);
    ends.push(null);
    ends[0] = {score: 0, start: -1};
    for (let start = 0; start < letters.length; start++) {
      const before = ends[start].score;
      const add = (end, score) => {
        const total = Math.fround(Math.fround(score) + before);
        if (!ends[end] || total > ends[end].score) {
          ends[end] = {score: total, start};
        }
      };
      let text = "";
      let hasSingle = false;
      const limit = Math.min(this.longest, letters.length - start);
      for (let n = 1; n <= limit; n++) {
        text += letters[start + n - 1];
        const piece = this.pieces.get(text);
        if (!piece) continue;
        hasSingle ||= n === 1;
        const size = encoder.encode(text).length;
        add(start + n, piece.isWhole ? size * this.largest - 0.1 : piece.score);
      }
      if (!hasSingle) add(start + 1, this.unknownScore);
    }
    const pieces = [];
    for (let end = letters.length; end > 0; end = ends[end].start) {
      pieces.push(letters.slice(ends[end].start, end).join(""));
    }
    return pieces.reverse();
  }

  // Merges the neighbours with the largest score until none are a piece.
  merge(letters) {
    const parts = this.whole(letters);
    for (;;) {
      let best = -1;
      let score = -Infinity;
      for (let i = 0; i + 1 < parts.length; i++) {
        if (parts[i].isWhole || parts[i + 1].isWhole) continue;
        const piece = this.pieces.get(parts[i].text + parts[i + 1].text);
        if (piece && piece.score > score) {
          best = i;
          score = piece.score;
        }
      }
      if (best < 0) return parts.map((part) => part.text);
      const [right] = parts.splice(best + 1, 1);
      parts[best].text += right.text;
    }
  }

  // Letters, and the pieces that are never split nor merged.
  whole(letters) {
    const parts = [];
    for (let i = 0; i < letters.length; ) {
      const rest = letters.slice(i, i + this.longest).join("");
      const own = this.userDefined.find((text) => rest.startsWith(text));
      parts.push({text: own ?? letters[i], isWhole: own !== undefined});
      i += own === undefined ? 1 : [...own].length;
    }
    return parts;
  }
}

// The longest rule that fits, from a double array (Darts-clone) that stands
// before its replacements.
function readRules(content) {
  if (!content?.length) return null;
  const view = new DataView(content.buffer, content.byteOffset);
  const size = view.getUint32(0, true);
  const unit = (i) => view.getUint32(4 + 4 * i, true);
  const texts = content.subarray(4 + size);
  const offset = (x) => (x >>> 10) << ((x & 0x200) >>> 6);
  return (bytes, start) => {
    let place = offset(unit(0));
    let found = null;
    for (let i = start; i < bytes.length; i++) {
      place ^= bytes[i];
      if (4 * place >= size) break;
      const node = unit(place);
      if (((node & 0x800000ff) >>> 0) !== bytes[i]) break;
      place ^= offset(node);
      if ((node >>> 8) & 1) {
        const from = unit(place) & 0x7fffffff;
        found = {from, length: i + 1 - start};
      }
    }
    if (!found) return null;
    const until = texts.indexOf(0, found.from);
    const text = decoder.decode(texts.subarray(found.from, until));
    return {text, length: found.length};
  };
}

// (number, value) of each field of a message: integers as numbers, texts,
// messages and floats as bytes.
function* fields(bytes) {
  let at = 0;
  const integer = () => {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
  };
  const take = (size) => bytes.subarray(at, (at += size));
  while (at < bytes.length) {
    const key = integer();
    const number = Math.floor(key / 8);
    if (key % 8 === 0) yield [number, integer()];
    else if (key % 8 === 1) yield [number, take(8)];
    else if (key % 8 === 2) yield [number, take(integer())];
    else if (key % 8 === 5) yield [number, take(4)];
    else throw new Error("the vocabulary is not a SentencePiece model");
  }
}

function last(found, number) {
  return found.findLast(([n]) => n === number)?.[1] ?? new Uint8Array();
}

function float(bytes) {
  if (!bytes) return 0;
  return new DataView(bytes.buffer, bytes.byteOffset).getFloat32(0, true);
}

function signed(integer) {
  return integer >= 2 ** 31 ? -1 : integer; // only -1 occurs: no such token
}
