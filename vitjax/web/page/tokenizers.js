// Tokenizers of the text towers: the same ids as vitjax.data.tokenizers.

import {Tokenizer} from "./runtime/tokenizers.min.mjs";
import {SentencePiece} from "./sentencepiece.js";

const PUNCTUATION = /[!-/:-@[-`{-~]/g;
// Python's white space, which is not that of JavaScript.
const WHITE_SPACE =
  /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/;
// Ligatures, and letters and digits of another width.
const COMPATIBLE =
  /[\u0132\u0133\u0149\u01c4-\u01cc\u01f1-\u01f3\ufb00-\ufb04\ufb06\uff01-\uffef]/g;
const CONTROL =
  /[\0-\x08\x0b\x0e-\x1f\x7f\u206a-\u206f\ufeff\ufff9-\ufffc]/g;
// More lines of OpenAI's file are not in its vocabulary.
const CLIP_MERGES = 49152 - 256 - 2;

// A function from a text to `max_len` ids.
export async function createTokenizer({name, max_len: length}, vocabulary) {
  const create = TOKENIZERS[name];
  if (!create) throw new Error(`there is no tokenizer ${name} for browsers`);
  return create(await unpacked(vocabulary), length);
}

function bert(vocabulary, length) {
  const ids = {};
  const lines = new TextDecoder().decode(vocabulary).split("\n");
  lines.forEach((piece, i) => {
    if (piece) ids[piece] = i;
  });
  const encode = library({
    normalizer: {
      type: "BertNormalizer",
      clean_text: true,
      handle_chinese_chars: true,
      strip_accents: null,
      lowercase: true,
    },
    pre_tokenizer: {type: "BertPreTokenizer"},
    model: {
      type: "WordPiece",
      vocab: ids,
      unk_token: "[UNK]",
      continuing_subword_prefix: "##",
      max_input_chars_per_word: 100,
    },
  });
  // The library takes the sigma that ends a word for another letter.
  const clean = (text) => text.replaceAll("\u03a3", "\u03c3");
  return (text) => fit([ids["[CLS]"], ...encode(clean(text))], length, 0);
}

function clip(vocabulary, length) {
  const text = new TextDecoder().decode(vocabulary);
  const {ids, merges} = text.startsWith("{")
    ? clipFromJson(JSON.parse(text).model)
    : clipFromMerges(text.split("\n"));
  const words = "'s|'t|'re|'ve|'m|'ll|'d|\\p{L}+|\\p{N}|[^\\s\\p{L}\\p{N}]+";
  const encode = library({
    normalizer: null,
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        {
          type: "Split",
          pattern: {Regex: words},
          behavior: "Removed",
          invert: true,
        },
        {type: "ByteLevel", add_prefix_space: false, use_regex: false},
      ],
    },
    model: {type: "BPE", vocab: ids, merges, end_of_word_suffix: "</w>"},
  });
  const start = ids["<|startoftext|>"];
  const end = ids["<|endoftext|>"];
  return (text) => {
    const found = [start, ...encode(lower(collapse(readable(text)))), end];
    return fit(closed(found, length, end), length, 0);
  };
}

function clipFromJson({vocab, merges}) {
  return {ids: vocab, merges};
}

function clipFromMerges(lines) {
  const pairs = lines.slice(1).filter(Boolean).slice(0, CLIP_MERGES);
  const merges = pairs.map((line) => line.split(" "));
  const codes = [];
  for (const [low, high] of [[33, 126], [161, 172], [174, 255]]) {
    for (let i = low; i <= high; i++) codes.push(i);
  }
  for (let i = 256; codes.length < 256; i++) codes.push(i);
  const letters = codes.map((code) => String.fromCharCode(code));
  const pieces = [
    ...letters,
    ...letters.map((letter) => `${letter}</w>`),
    ...merges.map((pair) => pair.join("")),
    "<|startoftext|>",
    "<|endoftext|>",
  ];
  return {ids: Object.fromEntries(pieces.map((x, i) => [x, i])), merges};
}

function sentencepiece(vocabulary, length) {
  const model = new SentencePiece(vocabulary);
  return (text) =>
    fit(model.encode(text).slice(0, length - 1), length, model.end);
}

function siglip(vocabulary, length) {
  const {encode, end} = pieces(vocabulary);
  return (text) => fit(ended(encode(lower(text)), length, end), length, 1);
}

function hfSiglip(vocabulary, length) {
  const {encode, end} = pieces(vocabulary);
  const clean = (text) => collapse(lower(text).replace(PUNCTUATION, ""));
  return (text) => fit(ended(encode(clean(text)), length, end), length, 1);
}

function gemma(vocabulary, length) {
  const {encode, end, padding} = pieces(vocabulary);
  return (text) =>
    fit(ended(encode(lower(text)), length, end), length, padding);
}

const TOKENIZERS = {
  bert,
  clip,
  gemma,
  hf_siglip: hfSiglip,
  sentencepiece,
  siglip,
};

// A file of SentencePiece or of the library tokenizers.
function pieces(vocabulary) {
  if (vocabulary[0] !== "{".charCodeAt()) {
    const model = new SentencePiece(vocabulary);
    const {end, padding} = model;
    return {encode: (text) => model.encode(text), end, padding};
  }
  const content = JSON.parse(new TextDecoder().decode(vocabulary));
  const added = content.added_tokens ?? [];
  const id = (piece) =>
    content.model.vocab[piece] ?? added.find((x) => x.content === piece)?.id;
  // Within a text special tokens are plain text.
  content.added_tokens = added.filter((token) => !token.special);
  return {
    encode: library(content),
    end: id("</s>") ?? id("<eos>"),
    padding: id("<pad>"),
  };
}

function library(content) {
  const whole = {added_tokens: [], post_processor: null, decoder: null};
  const tokenizer = new Tokenizer({...whole, ...content}, {});
  return (text) => tokenizer.encode(text, {add_special_tokens: false}).ids;
}

async function unpacked(bytes) {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  const stream = new Blob([bytes]).stream();
  const text = stream.pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(text).arrayBuffer());
}

// Decodes entities and does what ftfy does in Python, but for texts whose bytes
// were decoded wrongly.
function readable(text) {
  const names = {amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\xa0"};
  const decode = (x) =>
    x.replace(/&(#x?[0-9a-f]+|[a-z]+);/gi, (whole, name) => {
      if (name[0] !== "#") return names[name] ?? whole;
      const hex = name[1].toLowerCase() === "x";
      const code = parseInt(name.slice(hex ? 2 : 1), hex ? 16 : 10);
      return code < 0x110000 ? String.fromCodePoint(code) : whole;
    });
  const straight = text
    .replace(COMPATIBLE, (letter) => letter.normalize("NFKC"))
    .replace(/[\u02bc\u2018-\u201b]/g, "'")
    .replace(/[\u201c-\u201f]/g, '"')
    .replace(CONTROL, "");
  return decode(decode(straight.normalize("NFC")));
}

function collapse(text) {
  return text.split(WHITE_SPACE).filter(Boolean).join(" ");
}

function lower(text) {
  return text.toLowerCase();
}

// Cuts the last ids of a long text, and keeps its end.
function closed(ids, length, end) {
  return ids.length > length ? [...ids.slice(0, length - 1), end] : ids;
}

function ended(ids, length, end) {
  return [...ids.slice(0, length - 1), end];
}

function fit(ids, length, padding) {
  const cut = ids.slice(0, length);
  return [...cut, ...Array(length - cut.length).fill(padding)];
}
