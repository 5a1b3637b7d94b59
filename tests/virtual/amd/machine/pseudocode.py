"""AMD's instruction pseudocode, interpreted for one lane.

Values are bits with a type; integers are computed without bounds and cut when stored; floats are rounded
once, exactly (fractions), except for transcendental functions, which go through f64. What the text leaves
to the machine's mode is in MODE."""
import math
import re
import struct
from fractions import Fraction

FORMATS = {16: (5, 10), 32: (8, 23), 64: (11, 52)}


class Mode:
    """round: by width: 0 nearest even, 1 up, 2 down, 3 toward zero. hold: an f16 that is too large becomes the
    largest. saturate: integers of D0 are held to their range, not cut."""

    def __init__(self, round32=0, round16_64=0, hold=False, saturate=False):
        self.round = {16: round16_64, 32: round32, 64: round16_64}
        self.hold, self.saturate = hold, saturate


MODE = Mode()


def set_mode(mode):
    global MODE
    MODE = mode


def away(n, rest, negative, direction):
    """Whether n + rest is rounded up in size."""
    if direction == 0:
        return rest > Fraction(1, 2) or (rest == Fraction(1, 2) and n & 1)
    return rest > 0 and direction == (2 if negative else 1)


def zero_sum(width):
    """What x - x gives."""
    return -0.0 if MODE.round[width] == 2 else 0.0


class Unknown(Exception):
    """The text uses something that is not modelled."""


def decode_float(bits, width):
    e_bits, m_bits = FORMATS[width]
    sign, e, m = bits >> (width - 1), bits >> m_bits & ((1 << e_bits) - 1), bits & ((1 << m_bits) - 1)
    if e == (1 << e_bits) - 1:
        return math.nan if m else (-math.inf if sign else math.inf)
    bias = (1 << (e_bits - 1)) - 1
    v = math.ldexp(m + ((1 << m_bits) if e else 0), (e or 1) - bias - m_bits)
    return -v if sign else v


def encode_float(v, width):
    """v: float or Fraction (with no sign of zero)."""
    e_bits, m_bits = FORMATS[width]
    top = (1 << e_bits) - 1
    if isinstance(v, float):
        if v != v:
            return top << m_bits | 1 << (m_bits - 1)
        sign = 1 if math.copysign(1, v) < 0 else 0
        if math.isinf(v):
            return sign << (width - 1) | top << m_bits
        x = abs(Fraction(v))
    else:
        sign, x = (1 if v < 0 else 0), abs(v)
    if not x:
        return sign << (width - 1)
    bias = (1 << (e_bits - 1)) - 1
    e = x.numerator.bit_length() - x.denominator.bit_length()
    if x < Fraction(2) ** e:
        e -= 1
    e = max(e, 1 - bias)
    scaled = x / Fraction(2) ** (e - m_bits)
    n = scaled.numerator // scaled.denominator
    direction = MODE.round[width]
    if away(n, scaled - n, sign, direction):
        n += 1
    if n >= 2 << m_bits:
        n >>= 1
        e += 1
    if n < 1 << m_bits:
        return sign << (width - 1) | n
    if e > bias:
        if direction == 3 or direction == (1 if sign else 2) or (MODE.hold and width == 16):
            return (sign << (width - 1) | top << m_bits) - 1
        return sign << (width - 1) | top << m_bits
    return sign << (width - 1) | (e + bias) << m_bits | n & ((1 << m_bits) - 1)


class V:
    """kind: u, i, f, b; raw: bits (f, b), or an unbounded integer (u, i)."""

    def __init__(self, kind, width, raw):
        self.kind, self.width, self.raw = kind, width, raw

    def bits(self, width=None):
        return self.raw & ((1 << (width or self.width)) - 1)

    def number(self):
        return decode_float(self.bits(), self.width) if self.kind == "f" else self.raw

    def true(self):
        return self.number() != 0


def integer(v):
    return V("i", 32, int(v))


def flt(v, width):
    return V("f", width, encode_float(v, width))


def view(v, kind, width):
    if kind == "bf" or kind in ("fp", "bf8"):
        raise Unknown(kind)
    if MODE.saturate and kind in "ui" and v.kind in "ui":
        return V(kind, width, held(v.raw, kind, width))
    raw = v.bits(max(width, 1)) if v.raw >= 0 else v.raw & ((1 << width) - 1)
    raw &= (1 << width) - 1
    if kind == "i" and raw >> (width - 1) & 1:
        raw -= 1 << width
    return V(kind, width, raw)


def is_nan(v, width):
    e_bits, m_bits = FORMATS[width]
    return v.bits() & ((1 << (width - 1)) - 1) > ((1 << e_bits) - 1) << m_bits


def convert(v, kind, width):
    """64'F(x), 32'U(x) and so on: of the number, not the bits."""
    if v.kind == "pow2":
        return v
    if kind == "F":
        if v.kind == "f":
            if is_nan(v, v.width): # quiet or not, it stays so
                _, m = FORMATS[v.width]
                e_bits, m_bits = FORMATS[width]
                quiet = v.raw >> (m - 1) & 1
                return V("f", width, ((1 << e_bits) - 1) << m_bits | (1 << (m_bits - 1) if quiet else 1))
            return flt(v.number(), width)
        if v.kind == "b" or v.width == width:
            return V("f", width, v.bits(width))
        return flt(Fraction(v.raw), width) if v.raw else flt(0.0, width)
    if kind == "B":
        return V("b", width, v.raw & ((1 << width) - 1))
    if v.kind == "f":
        n = v.number()
        if n != n:
            return V(kind.lower(), width, 0)
        low, high = (0, (1 << width) - 1) if kind == "U" else (-(1 << (width - 1)), (1 << (width - 1)) - 1)
        return V(kind.lower(), width, low if n <= low else high if n >= high else int(n))
    raw = v.raw
    if kind == "I":
        raw &= (1 << width) - 1
        raw -= (1 << width) if raw >> (width - 1) else 0
    elif raw < 0 or kind == "U":
        raw &= (1 << width) - 1
    return V(kind.lower(), width, raw)


TOKEN = re.compile(r"""\s*(?:(?P<cast>\d+'(?:F|U|I|B)(?=[\s(;\[]|$))|(?P<sized>\d+'(?:0x[0-9a-fA-F]+|\d+\.\d+|\d+)(?:ULL|LL|U|F)?)
|(?P<num>0x[0-9a-fA-F]+(?:ULL|LL|U)?|\d+\.\d+F?|\d+(?:ULL|LL|U|F)?)|(?P<id>[A-Za-z_]\w*)
|(?P<op>\*\*|\+:|<<|>>|<=|>=|==|!=|<>|&&|\|\||\+=|-=|[-+*/&|^~!?:<>=(){}\[\],.;]))""", re.X)


def tokens(text):
    text = re.sub(r"//[^\n]*", "", text)
    at, out = 0, []
    text = text.rstrip()
    while at < len(text):
        m = TOKEN.match(text, at)
        if not m:
            raise Unknown("token " + text[at:at + 12])
        out.append((m.lastgroup, m.group(m.lastgroup)))
        at = m.end()
    return out


def number(text):
    m = re.fullmatch(r"(0x[0-9a-fA-F]+|\d+\.\d+|\d+)(ULL|LL|U|F)?", text)
    body, suffix = m.groups()
    if "." in body or (suffix == "F" and not body.startswith("0x")):
        return flt(float(body), 32 if suffix == "F" else 64)
    kind = "u" if suffix in ("U", "ULL") else "b" if body.startswith("0x") and not suffix else "i"
    return V(kind, 64 if suffix in ("ULL", "LL") else 32, int(body, 0))


class Machine:
    def __init__(self, text, state):
        self.code, self.at, self.vars, self.live = tokens(text), 0, state, True
        self.lambdas, self.broken = {}, False

    # -- tokens
    def peek(self, value=None, ahead=0):
        t = self.code[self.at + ahead] if self.at + ahead < len(self.code) else ("end", "")
        return t[1] == value if value is not None else t

    def take(self, value=None):
        t = self.peek()
        if value is not None and t[1] != value:
            raise Unknown(f"{value} expected, {t[1]} found")
        self.at += 1
        return t

    # -- statements
    def run(self):
        while self.peek()[0] != "end":
            self.statement()

    def block(self, ends):
        while not any(self.peek(e) for e in ends):
            if self.peek()[0] == "end":
                raise Unknown("end of text")
            self.statement()

    def statement(self):
        if self.peek(";"):
            self.take()
        elif self.peek("if"):
            self.conditional()
        elif self.peek("for"):
            self.loop()
        elif self.peek("declare"):
            self.declare()
        elif self.peek("break"):
            self.take()
            if self.live:
                self.broken, self.live = True, False
        elif self.peek("return"):
            self.take()
            v = self.expression()
            if self.live:
                self.result, self.live = v, False
        else:
            self.assignment()

    def conditional(self):
        live, done = self.live, False
        self.take("if")
        while True:
            c = self.expression()
            self.take("then")
            chosen = self.live_of(live) and not done and c.true()
            self.live = chosen
            self.block(("elsif", "else", "endif"))
            left = self.broken or hasattr(self, "result")
            done = done or chosen
            if self.peek("elsif"):
                self.take()
                self.live = live and not left
                continue
            if self.peek("else"):
                self.take()
                self.live = live and not done and not left
                self.block(("endif",))
            break
        self.take("endif")
        self.live = live and not self.broken and not hasattr(self, "result")

    def live_of(self, live):
        return live and not self.broken and not hasattr(self, "result")

    def loop(self):
        self.take("for")
        name = self.take()[1]
        self.take("in")
        low = self.expression().raw
        self.take(":")
        high = self.expression().raw
        self.take("do")
        live, body = self.live, self.at
        for k in range(low, high + 1):
            self.at = body
            self.vars[name] = V("u", 32, k)
            self.live = live and not self.broken
            self.block(("endfor",))
        self.take("endfor")
        self.broken, self.live = False, live

    def declare(self):
        self.take("declare")
        name = self.take()[1]
        self.take(":")
        width, kind = self.take()[1].split("'")
        if self.peek("["):
            self.take()
            count = self.expression().raw
            self.take("]")
            self.vars[name] = [V(kind.lower(), int(width), 0) for _ in range(count)]
        elif name not in self.vars:
            self.vars[name] = V(kind.lower(), int(width), 0)

    def assignment(self):
        if self.peek("{"):
            self.take()
            targets = [self.target()]
            while self.peek(","):
                self.take()
                targets.append(self.target())
            self.take("}")
            self.take("=")
            v = self.expression()
            if self.live:
                raw = v.raw
                for t in reversed(targets):
                    width = t[1][-1][2]
                    self.store(t, V("b", width, raw & ((1 << width) - 1)))
                    raw >>= width
            return
        if self.peek("=", 1) and self.peek("lambda", 2):
            name = self.take()[1]
            self.take("=")
            self.take("lambda")
            self.take("(")
            args = []
            while not self.peek(")"):
                args.append(self.take()[1])
                if self.peek(","):
                    self.take()
            self.take(")")
            self.take("(")
            body = []
            depth = 1
            while True:
                t = self.take()
                depth += t[1] == "("
                depth -= t[1] == ")"
                if not depth:
                    break
                body.append(t)
            self.lambdas[name] = (args, body)
            return
        targets = [self.target()]
        op = self.take()[1]
        while op == "=":
            save = self.at
            try:
                more = self.target()
                if not self.peek("="):
                    raise Unknown("not a chain")
                self.take("=")
                targets.append(more)
            except Unknown:
                self.at = save
                break
        v = self.expression()
        if not self.live:
            return
        for t in targets:
            if op in ("+=", "-="):
                v = self.binary(op[0], self.load(t), v)
            elif op != "=":
                raise Unknown(op)
            self.store(t, v)

    # -- places: (name, [(kind, low, width)])
    def target(self):
        name = self.take()
        if name[0] != "id":
            raise Unknown("target " + name[1])
        return (name[1], self.path())

    def path(self):
        steps = []
        while True:
            if self.peek("."):
                self.take()
                kind, width = re.fullmatch(r"(bf8|fp8|bf|[a-z]+)(\d+)?", self.take()[1]).groups()
                if kind not in ("u", "i", "f", "b") or width is None:
                    raise Unknown("type " + kind)
                steps.append((kind, 0, int(width)))
            elif self.peek("["):
                self.take()
                a = self.expression()
                if self.peek(":"):
                    self.take()
                    b = self.expression()
                    steps.append(("b", b.raw, a.raw - b.raw + 1))
                elif self.peek("+:"):
                    self.take()
                    n = self.expression()
                    steps.append(("b", a.raw, n.raw))
                else:
                    steps.append(("index", a.raw, 1))
                self.take("]")
            else:
                return steps

    def load(self, target):
        name, steps = target
        if name not in self.vars:
            if not self.live:
                return integer(0)
            raise Unknown("variable " + name)
        v = self.vars[name]
        return self.walk(v, steps)

    def walk(self, v, steps):
        if not self.live:
            return integer(0)
        for kind, low, width in steps:
            if isinstance(v, list):
                v = v[low] if self.live else v[0]
            elif kind == "index":
                v = V("u", 1, v.raw >> low & 1)
            elif kind == "b" and width <= 0: # from the low end: reversed
                v = V("b", 2 - width, int(bin(1 << (2 - width) | v.bits(2 - width))[:2:-1], 2))
            elif kind == "b" and (low or width != v.width):
                v = V("b", width, v.raw >> low & ((1 << width) - 1))
            else:
                v = view(v, kind, width)
        return v

    def store(self, target, v):
        name, steps = target
        old = self.vars.get(name)
        if not steps:
            if isinstance(old, V) and old.kind != "any" and name in self.fixed:
                self.vars[name] = V(old.kind, old.width, v.bits(old.width))
            else:
                self.vars[name] = v
            return
        if isinstance(old, list):
            index = steps[0][1]
            old[index] = v if len(steps) == 1 else self.merged(old[index], steps[1:], v)
            return
        self.written.setdefault(name, 0)
        self.vars[name] = self.merged(old or V("b", 64, 0), steps, v, name)

    def merged(self, old, steps, v, name=None):
        at, width, kind = 0, old.width, "b"
        for k, low, w in steps:
            at += low
            width, kind = w, k
        if kind == "f" and v.kind == "f" and v.width != width:
            v = convert(v, "F", width)
        elif MODE.saturate and name != "VCC" and kind in "ui" and v.kind in "ui":
            v = V(kind, width, held(v.raw, kind, width))
        elif kind == "f" and v.kind in "ui":
            v = V("b", width, v.raw) if v.raw >= 0 and v.width == width and v.kind == "u" else flt(float(v.raw), width)
        elif kind in "ui" and v.kind == "f":
            v = convert(v, kind.upper(), width)
        mask = ((1 << width) - 1) << at
        if name:
            self.written[name] |= mask
        size = max(old.width, at + width)
        raw = old.raw & ((1 << size) - 1)
        return V(old.kind if old.kind != "f" else "b", size, raw & ~mask | (v.raw & ((1 << width) - 1)) << at)

    # -- expressions
    LEVELS = [("||",), ("&&",), ("|",), ("^",), ("&",), ("==", "!=", "<>"), ("<", ">", "<=", ">="),
              ("<<", ">>"), ("+", "-"), ("*", "/"), ("**",)]

    def expression(self):
        c = self.level(0)
        if not self.peek("?"):
            return c
        self.take()
        live, chosen = self.live, c.true()
        self.live = live and chosen
        a = self.expression()
        self.take(":")
        self.live = live and not chosen
        b = self.expression()
        self.live = live
        return a if chosen else b

    def level(self, n):
        if n == len(self.LEVELS):
            return self.unary()
        v = self.level(n + 1)
        while self.peek()[0] == "op" and self.peek()[1] in self.LEVELS[n]:
            op = self.take()[1]
            v = self.binary(op, v, self.level(n + 1))
        return v

    def unary(self):
        t = self.peek()
        if t == ("op", "-") or t == ("op", "+"):
            self.take()
            v = self.unary()
            if v.kind == "f":
                v = V("f", v.width, v.raw ^ (1 << (v.width - 1) if t[1] == "-" else 0))
                v.signed = not v.number() # +0.0 and -0.0: zeros of that sign
                return v
            if t[1] == "+":
                return v
            return V("i", v.width, -v.raw)
        if t == ("op", "~"):
            self.take()
            v = self.unary()
            return V(v.kind, v.width, ~v.raw & ((1 << v.width) - 1))
        if t == ("op", "!"):
            self.take()
            return integer(not self.unary().true())
        return self.postfix()

    def postfix(self):
        v = self.primary()
        steps = self.path()
        return self.walk(v, steps) if steps else v

    def primary(self):
        kind, text = self.take()
        if kind == "op" and text == "(":
            v = self.expression()
            self.take(")")
            return v
        if kind == "op" and text == "{":
            parts = [self.expression()]
            while self.peek(","):
                self.take()
                parts.append(self.expression())
            self.take("}")
            raw = width = 0
            for p in parts:
                raw = raw << p.width | p.bits()
                width += p.width
            return V("b", width, raw)
        if kind == "cast":
            width, letter = text.split("'")
            if self.peek("("):
                self.take()
                v = self.expression()
                self.take(")")
                return convert(v, letter, int(width))
            raise Unknown("cast")
        if kind == "sized":
            width, rest = text.split("'")
            v = number(rest)
            return flt(v.number(), int(width)) if v.kind == "f" else V(v.kind, int(width), v.raw)
        if kind == "num":
            return number(text)
        if kind == "id" and self.peek("("):
            self.take()
            args = []
            while not self.peek(")"):
                args.append(self.expression())
                if self.peek(","):
                    self.take()
            self.take(")")
            return self.call(text, args) if self.live else integer(0)
        if kind == "id":
            return self.name(text)
        raise Unknown("expression at " + text)

    def name(self, text):
        if text in self.vars:
            return self.vars[text]
        if text == "INF":
            width = 64
            if self.peek("."):
                self.take()
                width = int(self.take()[1][1:])
            return flt(math.inf, width)
        if text == "DENORM":
            self.path()
            return V("denorm", 32, 0)
        if text.startswith("UNDERFLOW_F"):
            return flt(0.0, int(text[11:]))
        if text.startswith("OVERFLOW_F"):
            return flt(math.inf, int(text[10:]))
        if text == "PI":
            return flt(math.pi, 64)
        if text == "NAN":
            return flt(math.nan, 64)
        if not self.live:
            return integer(0)
        raise Unknown("variable " + text)

    def binary(self, op, a, b):
        if op in ("&&", "||"):
            return integer((a.true() and b.true()) if op == "&&" else (a.true() or b.true()))
        if b.kind == "denorm":
            e, m = FORMATS[a.width]
            raw = a.bits()
            return integer(not raw >> m & ((1 << e) - 1) and raw & ((1 << m) - 1))
        if a.kind == "f" or b.kind == "f":
            return self.float_binary(op, a, b)
        x, y = a.raw, b.raw
        signed = "i" if a.kind == "i" and b.kind == "i" else "u"
        width = max(a.width, b.width)
        table = {"|": lambda: x | y, "&": lambda: x & y, "^": lambda: x ^ y, "+": lambda: x + y,
                 "-": lambda: x - y, "*": lambda: x * y}
        if op in table:
            return V(signed if op not in "|&^" else a.kind, width, table[op]())
        if op == "<<":
            return V(a.kind, a.width, x << y if 0 <= y < 4096 else 0)
        if op == ">>":
            return V(a.kind, a.width, x >> y if 0 <= y < 4096 else 0)
        if op == "**":
            return V("i", width, x ** y) if y >= 0 else flt(float(x) ** y, 64)
        if op in ("==", "!=", "<>", "<", ">", "<=", ">="):
            return integer({"==": x == y, "!=": x != y, "<>": x != y, "<": x < y, ">": x > y, "<=": x <= y,
                            ">=": x >= y}[op])
        raise Unknown("operator " + op)

    def float_binary(self, op, a, b):
        width = max(v.width for v in (a, b) if v.kind == "f")
        x = a.number() if a.kind == "f" else float(a.raw)
        y = b.number() if b.kind == "f" else b.raw
        if op == "**":
            n = int(y)
            return V("pow2", width, n) if x == 2.0 else self.fail("power")
        if b.kind == "pow2":
            return self.scaled(a, b.raw)
        y = float(y)
        if op == "==" and getattr(b, "signed", False):
            return integer(x == y and math.copysign(1, x) == math.copysign(1, y))
        if op in "+-*/" and math.isfinite(x) and math.isfinite(y) and (op != "/" or y):
            return exact(op, x, y, width)
        if op in ("==", "!=", "<>", "<", ">", "<=", ">="):
            return integer({"==": x == y, "!=": x != y, "<>": x < y or x > y, "<": x < y, ">": x > y,
                            "<=": x <= y, ">=": x >= y}[op])
        if op == "+":
            r = x + y
        elif op == "-":
            r = x - y
        elif op == "*":
            r = x * y if not (x == 0 and math.isinf(y)) else math.nan
        elif op == "/":
            if y == 0:
                r = math.nan if x == 0 or x != x else math.copysign(math.inf, x) * math.copysign(1, y)
            else:
                r = x / y
        else:
            raise Unknown("float " + op)
        return flt(r, width)

    def fail(self, what):
        raise Unknown(what)

    def scaled(self, v, n):
        x = v.number()
        if x != x or math.isinf(x) or x == 0:
            return v
        n = max(min(n, 5000), -5000)
        return flt(Fraction(x) * (Fraction(2) ** n), v.width)

    def call(self, name, args):
        a = args[0] if args else None
        if name in self.lambdas:
            params, body = self.lambdas[name]
            m = Machine.__new__(Machine)
            m.code, m.at, m.live, m.broken, m.lambdas = body, 0, True, False, self.lambdas
            m.vars, m.fixed, m.written = dict(zip(params, args)), set(), {}
            if any(t[1] == "return" for t in body):
                m.run()
                return m.result
            return m.expression()
        if name.startswith("v_") and name in LIBRARY:
            return LIBRARY[name](self, args)
        f = FUNCTIONS.get(name)
        if not f:
            raise Unknown("function " + name)
        return f(*args)


def held(n, kind, width):
    low, high = (0, (1 << width) - 1) if kind == "u" else (-(1 << (width - 1)), (1 << (width - 1)) - 1)
    return max(low, min(high, n))


def exact(op, x, y, width):
    """Finite numbers; rounded once."""
    a, b = Fraction(x), Fraction(y)
    if op in "*/":
        r = a * b if op == "*" else a / b
        return flt(r if r else math.copysign(0.0, x) * math.copysign(1, y), width)
    b = -b if op == "-" else b
    y = -y if op == "-" else y
    if a + b:
        return flt(a + b, width)
    same = not x and math.copysign(1, x) == math.copysign(1, y)
    return flt(x if same else zero_sum(width), width)


def signext_from_bit(v, n):
    raw, bit = v.raw & ((1 << v.width) - 1), n.raw
    if not bit:
        return V("i", v.width, 0)
    raw &= (1 << bit) - 1
    return V("i", v.width, raw - (1 << bit) if raw >> (bit - 1) & 1 else raw)


def to_int(width, signed):
    def f(v):
        n = v.number()
        low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if signed else (0, (1 << width) - 1)
        n = 0 if n != n else low if n <= low else high if n >= high else int(n)
        return V("i" if signed else "u", width, n)
    return f


def fma(a, b, c):
    x, y, z = a.number(), b.number(), c.number()
    if any(v != v or math.isinf(v) for v in (x, y, z)):
        if (math.isinf(x) and y == 0) or (math.isinf(y) and x == 0) or x != x or y != y or z != z:
            return flt(math.nan, c.width)
        if math.isinf(x) or math.isinf(y):
            p = math.copysign(math.inf, x) * math.copysign(1, y)
            return flt(math.nan if math.isinf(z) and z != p else p, c.width)
        return flt(z, c.width)
    r = Fraction(x) * Fraction(y) + Fraction(z)
    if not r:
        p = math.copysign(1, x) * math.copysign(1, y)
        zero = (x == 0 or y == 0) and z == 0
        both = zero and p == math.copysign(1, z)
        return flt(math.copysign(0.0, p) if both else zero_sum(c.width), c.width)
    return flt(r, c.width)


def raw_exponent(v):
    e, m = FORMATS[v.width]
    return integer(v.bits() >> m & ((1 << e) - 1))


def mantissa(v):
    x = v.number()
    return flt(math.frexp(x)[0], v.width) if x == x and not math.isinf(x) else v


def guarded(f, width=None):
    def g(v):
        try:
            return flt(math.nan if math.isinf(v.number()) else f(v.number()), width or v.width)
        except (ValueError, OverflowError):
            raise Unknown("domain")
    return g


def floor_of(f):
    def g(v):
        x = v.number()
        return v if x != x or math.isinf(x) or x == 0 else flt(math.copysign(float(f(x)), x), v.width)
    return g


def norm(low, high):
    return lambda v: V("i", 32, 0 if v.number() != v.number() else
                       round(max(low / high, min(1.0, v.number())) * high))


def sat(width, signed):
    low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if signed else (0, (1 << width) - 1)
    return lambda v: V("i" if signed else "u", width, max(low, min(high, v.raw)))


def sub(kind, width):
    return lambda v: view(v, kind, width)


FUNCTIONS = {
    "isNAN": lambda v: integer(is_nan(v, v.width)),
    "isSignalNAN": lambda v: integer(is_nan(v, v.width) and not v.raw >> (FORMATS[v.width][1] - 1) & 1),
    "isQuietNAN": lambda v: integer(is_nan(v, v.width) and v.raw >> (FORMATS[v.width][1] - 1) & 1),
    "cvtToQuietNAN": lambda v: V("f", v.width, v.raw | 1 << (FORMATS[v.width][1] - 1)),
    "sign": lambda v: integer(v.raw >> (v.width - 1) & 1),
    "exponent": raw_exponent,
    "mantissa": mantissa,
    "abs": lambda v: V("f", v.width, v.raw & ~(1 << (v.width - 1))) if v.kind == "f" else V("i", v.width, abs(v.raw)),
    "fma": fma,
    "ldexp": lambda v, n: Machine.scaled(None, v, n.raw),
    "floor": floor_of(math.floor),
    "trunc": floor_of(math.trunc),
    "fract": lambda v: flt(v.number() - math.floor(v.number()), v.width) if math.isfinite(v.number()) else flt(math.nan, v.width),
    "isEven": lambda v: integer(math.isfinite(v.number()) and math.fmod(v.number(), 2) == 0),
    "sqrt": lambda v: flt(math.sqrt(v.number()), v.width) if v.number() >= 0 else flt(math.nan if v.number() != 0 else v.number(), v.width),
    "log2": lambda v: flt(-math.inf if v.number() == 0 else math.nan if not v.number() > 0 else math.inf if math.isinf(v.number()) else math.log2(v.number()), v.width),
    "pow": lambda a, b: flt(math.nan if b.number() != b.number() else math.inf if math.isinf(b.number()) and b.number() > 0 else Fraction(2) ** 2000 if b.number() > 1020 else 0.0 if b.number() < -2000 else 2.0 ** b.number(), b.width) if a.number() == 2 else Machine.fail(None, "pow"),
    "sin_of_turns": guarded(lambda x: math.sin(2 * math.pi * math.fmod(x, 1))),
    "cos_of_turns": guarded(lambda x: math.cos(2 * math.pi * math.fmod(x, 1))),
    "signext": lambda v: V("i", 32, view(v, "i", v.width).raw),
    "signext_from_bit": signext_from_bit,
    "bitCount": lambda v: integer(bin(v.bits()).count("1")),
    "f32_to_i32": to_int(32, True), "f64_to_i32": to_int(32, True), "f32_to_u32": to_int(32, False),
    "f64_to_u32": to_int(32, False), "f16_to_u16": to_int(16, False), "f16_to_i16": to_int(16, True),
    "i32_to_f32": lambda v: flt(Fraction(view(v, "i", 32).raw) if v.raw else 0.0, 32),
    "i32_to_f64": lambda v: flt(float(view(v, "i", 32).raw), 64),
    "u32_to_f64": lambda v: flt(float(v.bits(32)), 64), "u32_to_f32": lambda v: flt(Fraction(v.bits(32)) if v.bits(32) else 0.0, 32),
    "u16_to_f16": lambda v: flt(Fraction(v.bits(16)) if v.bits(16) else 0.0, 16),
    "i16_to_f16": lambda v: flt(Fraction(view(v, "i", 16).raw) if v.raw else 0.0, 16),
    "f32_to_f16": lambda v: convert(v, "F", 16), "f16_to_f32": lambda v: convert(view(v, "f", 16), "F", 32),
    "f32_to_f64": lambda v: convert(v, "F", 64), "f64_to_f32": lambda v: convert(v, "F", 32),
    "u32_to_u16": sat(16, False), "i32_to_i16": sat(16, True),
    "f32_to_snorm": norm(-32767, 32767), "f16_to_snorm": norm(-32767, 32767),
    "f32_to_unorm": norm(0, 65535), "f16_to_unorm": norm(0, 65535),
    "i4_to_i32": sub("i", 4), "i8_to_i32": sub("i", 8), "i16_to_i32": sub("i", 16),
    "u4_to_u32": sub("u", 4), "u8_to_u32": sub("u", 8), "u16_to_u32": sub("u", 16),
}
LIBRARY = {}  # v_max_f32 and the like: filled by whoever has the texts
