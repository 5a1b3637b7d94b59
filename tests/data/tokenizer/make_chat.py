#!/usr/bin/env python3
"""What models' own chat templates (Jinja) make of conversations: chat.json beside this file.

usage: make_chat.py v3=DIR/tokenizer_config.json fairy=... > chat.json      (pip install jinja2)

Made from DeepSeek-V3's tokenizer_config.json and models/fairy's, with Jinja set up as transformers does.
"""
import itertools
import json
import sys

from jinja2.sandbox import ImmutableSandboxedEnvironment

MESSAGES = [
    [],
    [("user", "Hi")],
    [("system", "Be brief."), ("user", "Hi")],
    [("system", "Be brief."), ("system", "Be kind."), ("user", "Hi")],
    [("user", "Hi"), ("assistant", "Hello!"), ("user", "你好\n\n")],
    [("user", "Hi"), ("system", "Now be brief."), ("assistant", "OK"), ("system", "And kind."), ("user", " ?")],
    [("user", "a"), ("user", "b"), ("assistant", ""), ("assistant", "c")],
    [("user", "{text} {{bos}} \\n <｜User｜>"), ("assistant", "<think>x</think>y")],
]


def main():
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    rows = []
    for name, path in (argument.split("=", 1) for argument in sys.argv[1:]):
        config = json.load(open(path, encoding="utf-8"))
        tokens = {key: config[key] if isinstance(config[key], str) else config[key]["content"]
                  for key in ("bos_token", "eos_token")}
        template = environment.from_string(config["chat_template"])
        for messages, generation in itertools.product(MESSAGES, (False, True)):
            text = template.render(messages=[{"role": r, "content": c} for r, c in messages],
                                   add_generation_prompt=generation, **tokens)
            rows.append({"template": name, "messages": messages, "generation": generation, "text": text})
    json.dump(rows, sys.stdout, ensure_ascii=True, indent=0)
    sys.stdout.write("\n")


main()
