/* Constant expressions, with C's operators and precedence, over 64-bit integers. */
#include "parser.h"

static bool punct(const struct ptx_parser *parser, char c)
{
    return parser->lexer.token.kind == PTX_PUNCT && parser->lexer.token.punct == c;
}

static int64_t primary(struct ptx_parser *parser)
{
    struct ptx_lexer *lexer = &parser->lexer;
    struct ptx_token t = lexer->token;
    if (++parser->depth > 256)
        ptx_error(lexer, &t, "expression is nested too deeply");
    int64_t v = 0;
    if (t.kind == PTX_INT) {
        v = (int64_t)t.value;
        ptx_next(lexer);
    } else if (ptx_is_name(&t, "WARP_SZ")) {
        v = 32;
        ptx_next(lexer);
    } else if (ptx_accept(lexer, '-')) {
        v = (int64_t)(0 - (uint64_t)primary(parser));
    } else if (ptx_accept(lexer, '+')) {
        v = primary(parser);
    } else if (ptx_accept(lexer, '~')) {
        v = ~primary(parser);
    } else if (ptx_accept(lexer, '!')) {
        v = !primary(parser);
    } else if (ptx_accept(lexer, '(')) {
        if (ptx_is_dot(&lexer->token, "s64") || ptx_is_dot(&lexer->token, "u64")) {
            ptx_next(lexer);
            ptx_expect(lexer, ')');
            v = primary(parser);
        } else {
            v = ptx_expression(parser);
            ptx_expect(lexer, ')');
        }
    } else {
        ptx_error(lexer, &t, "an integer constant is expected here");
    }
    parser->depth--;
    return v;
}

enum binary_operator {
    MUL,
    DIV,
    MOD,
    ADD,
    SUB,
    SHL,
    SHR,
    LT,
    LE,
    GT,
    GE,
    EQ,
    NE,
    AND,
    XOR,
    OR,
    LAND,
    LOR,
    NONE
};
static const uint8_t precedence[] = {10, 10, 10, 9, 9, 8, 8, 7, 7, 7, 7, 6, 6, 5, 4, 3, 2, 1, 0};

/* The operator at hand, and how many tokens it takes. The second character is looked at in the
 * text. */
static enum binary_operator binary(const struct ptx_parser *parser, int *tokens)
{
    if (parser->lexer.token.kind != PTX_PUNCT)
        return NONE;
    char c = parser->lexer.token.punct;
    char d = parser->lexer.at < parser->lexer.end ? *parser->lexer.at : 0;
    bool twice = d == c;
    *tokens = 1;
    switch (c) {
    case '*':
        return MUL;
    case '/':
        return DIV;
    case '%':
        return MOD;
    case '+':
        return ADD;
    case '-':
        return SUB;
    case '^':
        return XOR;
    case '&':
        *tokens = twice ? 2 : 1;
        return twice ? LAND : AND;
    case '|':
        *tokens = twice ? 2 : 1;
        return twice ? LOR : OR;
    case '<':
        *tokens = twice || d == '=' ? 2 : 1;
        return twice ? SHL : d == '=' ? LE : LT;
    case '>':
        *tokens = twice || d == '=' ? 2 : 1;
        return twice ? SHR : d == '=' ? GE : GT;
    case '=':
        *tokens = 2;
        return twice ? EQ : NONE;
    case '!':
        *tokens = 2;
        return d == '=' ? NE : NONE;
    default:
        return NONE;
    }
}

static int64_t apply(struct ptx_parser *parser, const struct ptx_token *at, enum binary_operator op,
                     int64_t a, int64_t b)
{
    uint64_t x = (uint64_t)a, y = (uint64_t)b;
    switch (op) {
    case MUL:
        return (int64_t)(x * y);
    case DIV:
    case MOD:
        if (b == 0 || (a == INT64_MIN && b == -1))
            ptx_error(&parser->lexer, at, "division overflows in a constant expression");
        return op == DIV ? a / b : a % b;
    case ADD:
        return (int64_t)(x + y);
    case SUB:
        return (int64_t)(x - y);
    case SHL:
        return y > 63 ? 0 : (int64_t)(x << y);
    case SHR:
        return a >> (y > 63 ? 63 : y);
    case LT:
        return a < b;
    case LE:
        return a <= b;
    case GT:
        return a > b;
    case GE:
        return a >= b;
    case EQ:
        return a == b;
    case NE:
        return a != b;
    case AND:
        return a & b;
    case XOR:
        return a ^ b;
    case OR:
        return a | b;
    case LAND:
        return a && b;
    case LOR:
        return a || b;
    default:
        return 0;
    }
}

static int64_t climb(struct ptx_parser *parser, int64_t left, int least)
{
    struct ptx_lexer *lexer = &parser->lexer;
    int tokens;
    for (;;) {
        struct ptx_token at = lexer->token;
        enum binary_operator op = binary(parser, &tokens);
        if (op == NONE || precedence[op] < least)
            return left;
        while (tokens--)
            ptx_next(lexer);
        int64_t right = primary(parser);
        int next;
        enum binary_operator after = binary(parser, &next);
        if (after != NONE && precedence[after] > precedence[op])
            right = climb(parser, right, precedence[op] + 1);
        left = apply(parser, &at, op, left, right);
    }
}

int64_t ptx_expression(struct ptx_parser *parser)
{
    int64_t v = climb(parser, primary(parser), 1);
    if (punct(parser, '?')) {
        ptx_next(&parser->lexer);
        int64_t yes = ptx_expression(parser);
        ptx_expect(&parser->lexer, ':');
        int64_t no = ptx_expression(parser);
        return v ? yes : no;
    }
    return v;
}

/* What follows a base in an address: + or - and a term. */
int64_t ptx_offset(struct ptx_parser *parser)
{
    return climb(parser, 0, precedence[ADD]);
}
