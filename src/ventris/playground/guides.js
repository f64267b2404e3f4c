"use strict";
// What a guide needs to be told, and how that is written in a request.

const asLines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

const GUIDE_FORMS = {
  json: { hint: "", usual: "", options: () => ({ kind: "object" }) },
  "json-schema": {
    hint: "A JSON schema",
    usual: '{\n  "type": "object",\n  "properties": {\n    "name": {"type": "string"},\n    "age": {"type": "integer"}\n  },\n  "required": ["name", "age"],\n  "additionalProperties": false\n}',
    options: (text) => ({ schema: parsed(text, "the schema") }),
  },
  regex: { hint: "An expression that the whole answer matches", usual: "[A-Z][a-z]+( [a-z]+){3,12}\\.", options: (text) => ({ pattern: text }) },
  choice: { hint: "One answer a line", usual: "yes\nno", options: (text) => ({ options: asLines(text) }) },
  grammar: { hint: "A grammar in Lark's or llama.cpp's notation", usual: 'root ::= "yes" | "no" ", " [a-z]+', options: (text) => ({ source: text }) },
  format: { hint: "A template with holes", usual: "Name: {name:str}\nAge: {age:int}", options: (text) => ({ template: text }) },
  words: { hint: "Words that must appear, one a line", usual: "chair", options: (text) => ({ include: asLines(text) }) },
};

function guideForm(name) {
  return GUIDE_FORMS[name] ?? { hint: "Options as a JSON object", usual: "{}", options: (text) => parsed(text, "the guide's options") };
}

function parsed(text, what) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`${what}: ${error.message}`);
  }
}
