/* lines.c: source lines of instructions, by the object's DWARF line table (versions 4 and 5). What
 * does not read is no error: there are no lines then, as in an object without them. */
#include <stdlib.h>
#include <string.h>

#include "loader.h"

enum { MAX_ROWS = 1 << 22, MAX_FILES = 1 << 16, MAX_FORMATS = 16 };

struct cursor {
    const uint8_t *at, *end;
    bool bad;
};

static uint64_t fixed(struct cursor *c, unsigned bytes)
{
    uint64_t value = 0;
    if ((size_t)(c->end - c->at) < bytes) {
        c->bad = true;
        c->at = c->end;
        return 0;
    }
    memcpy(&value, c->at, bytes);
    c->at += bytes;
    return value;
}

static uint64_t leb(struct cursor *c, bool with_sign)
{
    uint64_t value = 0;
    unsigned shift = 0;
    uint8_t byte;
    do {
        byte = (uint8_t)fixed(c, 1);
        if (shift < 64)
            value |= (uint64_t)(byte & 127) << shift;
        shift += 7;
    } while (byte & 128 && !c->bad);
    if (with_sign && byte & 64 && shift < 64)
        value |= ~(uint64_t)0 << shift;
    return value;
}

static const char *string(struct cursor *c)
{
    const uint8_t *end = memchr(c->at, 0, (size_t)(c->end - c->at));
    const char *text = (const char *)c->at;
    if (!end) {
        c->bad = true;
        c->at = c->end;
        return "";
    }
    c->at = end + 1;
    return text;
}

/* ---- the parts of the file ---- */

struct bytes {
    const uint8_t *bytes;
    size_t size;
};

/* A section by its name; absent: empty. */
static struct cursor section(const struct bytes *file, const char *name)
{
    uint64_t headers, names_at, at, bytes;
    uint16_t count, names;
    if (file->size < 64)
        return (struct cursor){0};
    memcpy(&headers, file->bytes + 40, 8);
    memcpy(&count, file->bytes + 60, 2);
    memcpy(&names, file->bytes + 62, 2);
    if (headers > file->size || (file->size - headers) / 64 < count || names >= count)
        return (struct cursor){0};
    memcpy(&names_at, file->bytes + headers + 64u * names + 24, 8);
    for (uint16_t i = 0; i < count; i++) {
        const uint8_t *h = file->bytes + headers + 64u * i;
        uint32_t offset;
        memcpy(&offset, h, 4);
        memcpy(&at, h + 24, 8);
        memcpy(&bytes, h + 32, 8);
        size_t n = strlen(name) + 1;
        if (names_at > file->size || offset > file->size - names_at ||
            file->size - names_at - offset < n || memcmp(file->bytes + names_at + offset, name, n))
            continue;
        if (at <= file->size && bytes <= file->size - at)
            return (struct cursor){file->bytes + at, file->bytes + at + bytes, false};
    }
    return (struct cursor){0};
}

struct reader {
    struct bytes file;
    struct vl_lines *lines;
    struct cursor line_strings, strings;
    size_t row_room, file_room;
};

static const char *string_at(const struct cursor *table, uint64_t offset)
{
    struct cursor c = *table;
    if (!c.at || offset >= (uint64_t)(c.end - c.at))
        return "";
    c.at += offset;
    return string(&c);
}

/* ---- file names ---- */

static bool add_file(struct reader *r, const char *name)
{
    struct vl_lines *l = r->lines;
    if (l->file_count == r->file_room) {
        size_t room = r->file_room ? 2 * r->file_room : 16;
        const char **grown = room > MAX_FILES ? NULL : realloc(l->files, room * sizeof *grown);
        if (!grown)
            return false;
        l->files = grown;
        r->file_room = room;
    }
    l->files[l->file_count++] = name;
    return true;
}

enum {
    FORM_DATA2 = 5,
    FORM_DATA4 = 6,
    FORM_DATA8 = 7,
    FORM_STRING = 8,
    FORM_BLOCK = 9,
    FORM_DATA1 = 11,
    FORM_STRP = 14,
    FORM_UDATA = 15,
    FORM_DATA16 = 30,
    FORM_LINE_STRP = 31,
    CONTENT_PATH = 1
};

/* A value of a form; its text, if it is one. */
static const char *form(struct reader *r, struct cursor *c, uint64_t form_code)
{
    switch (form_code) {
    case FORM_STRING:
        return string(c);
    case FORM_LINE_STRP:
        return string_at(&r->line_strings, fixed(c, 4));
    case FORM_STRP:
        return string_at(&r->strings, fixed(c, 4));
    case FORM_UDATA:
        leb(c, false);
        return "";
    case FORM_DATA1:
    case FORM_DATA2:
        fixed(c, form_code == FORM_DATA1 ? 1 : 2);
        return "";
    case FORM_DATA4:
    case FORM_DATA8:
        fixed(c, form_code == FORM_DATA4 ? 4 : 8);
        return "";
    case FORM_DATA16:
        fixed(c, 8);
        fixed(c, 8);
        return "";
    case FORM_BLOCK: {
        uint64_t n = leb(c, false);
        if (n > (uint64_t)(c->end - c->at))
            c->bad = true;
        else
            c->at += n;
        return "";
    }
    default:
        c->bad = true;
        return "";
    }
}

/* Version 5: descriptions of the columns, then the rows. */
static void entries(struct reader *r, struct cursor *c, bool files)
{
    uint64_t content[MAX_FORMATS] = {0}, forms[MAX_FORMATS] = {0};
    unsigned columns = (unsigned)fixed(c, 1);
    if (columns > MAX_FORMATS)
        c->bad = true;
    for (unsigned i = 0; i < columns && !c->bad; i++) {
        content[i] = leb(c, false);
        forms[i] = leb(c, false);
    }
    uint64_t count = leb(c, false);
    for (uint64_t k = 0; k < count && !c->bad && columns; k++) {
        const char *name = "";
        for (unsigned i = 0; i < columns && !c->bad; i++) {
            const char *text = form(r, c, forms[i]);
            if (content[i] == CONTENT_PATH)
                name = text;
        }
        if (files && !c->bad && !add_file(r, name))
            c->bad = true;
    }
}

static void entries_v4(struct reader *r, struct cursor *c)
{
    while (*string(c) && !c->bad) /* folders */
        ;
    add_file(r, ""); /* files count from 1 */
    for (const char *name; *(name = string(c)) && !c->bad;) {
        leb(c, false);
        leb(c, false);
        leb(c, false);
        if (!add_file(r, name))
            c->bad = true;
    }
}

/* ---- the program ---- */

struct state {
    uint64_t address, file, line;
};

static bool add_row(struct reader *r, const struct state *s, size_t first_file, bool end)
{
    struct vl_lines *l = r->lines;
    if (l->count == r->row_room) {
        size_t room = r->row_room ? 2 * r->row_room : 256;
        struct vl_line *grown = room > MAX_ROWS ? NULL : realloc(l->rows, room * sizeof *grown);
        if (!grown)
            return false;
        l->rows = grown;
        r->row_room = room;
    }
    uint64_t file = first_file + s->file;
    l->rows[l->count] =
        (struct vl_line){s->address, file < l->file_count && !end ? (uint32_t)file : UINT32_MAX,
                         end ? 0 : (uint32_t)s->line, (uint32_t)l->count};
    l->count++;
    return true;
}

struct header {
    unsigned version, minimum, opcode_base, line_range;
    int line_base;
    uint8_t lengths[256];
    size_t first_file;
};

static void extended(struct cursor *c, const struct header *h, struct state *s, struct reader *r)
{
    enum { END_SEQUENCE = 1, SET_ADDRESS = 2 };
    uint64_t n = leb(c, false);
    if (!n || n > (uint64_t)(c->end - c->at)) {
        c->bad = true;
        return;
    }
    const uint8_t *next = c->at + n;
    unsigned code = (unsigned)fixed(c, 1);
    if (code == SET_ADDRESS && n == 9)
        s->address = fixed(c, 8);
    if (code == END_SEQUENCE) {
        c->bad |= !add_row(r, s, h->first_file, true);
        *s = (struct state){0, 1, 1};
    }
    c->at = next;
}

static void standard(struct cursor *c, unsigned code, const struct header *h, struct state *s,
                     struct reader *r)
{
    switch (code) {
    case 1: /* copy */
        c->bad |= !add_row(r, s, h->first_file, false);
        break;
    case 2:
        s->address += leb(c, false) * h->minimum;
        break;
    case 3:
        s->line += leb(c, true);
        break;
    case 4:
        s->file = leb(c, false);
        break;
    case 8:
        s->address += (255 - h->opcode_base) / h->line_range * h->minimum;
        break;
    case 9:
        s->address += fixed(c, 2);
        break;
    default: /* columns, flags, and what is not known */
        for (unsigned i = 0; i < h->lengths[code]; i++)
            leb(c, false);
        break;
    }
}

static void program(struct reader *r, struct cursor *c, const struct header *h)
{
    struct state s = {0, 1, 1};
    while (c->at < c->end && !c->bad) {
        unsigned code = (unsigned)fixed(c, 1);
        if (code >= h->opcode_base) {
            unsigned adjusted = code - h->opcode_base;
            s.address += adjusted / h->line_range * h->minimum;
            s.line += (uint64_t)(int64_t)(h->line_base + (int)(adjusted % h->line_range));
            c->bad |= !add_row(r, &s, h->first_file, false);
        } else if (code) {
            standard(c, code, h, &s, r);
        } else {
            extended(c, h, &s, r);
        }
    }
}

/* One unit's table; `c` ends with it. */
static void unit(struct reader *r, struct cursor *c)
{
    struct header h = {.version = (unsigned)fixed(c, 2), .first_file = r->lines->file_count};
    if (h.version != 4 && h.version != 5)
        return;
    if (h.version == 5)
        fixed(c, 2); /* sizes of an address and of a segment's */
    uint64_t header_bytes = fixed(c, 4);
    if (header_bytes > (uint64_t)(c->end - c->at))
        return;
    struct cursor rest = {c->at + header_bytes, c->end, false};
    h.minimum = (unsigned)fixed(c, 1);
    fixed(c, 2);                      /* operations an instruction; is_stmt */
    int line_base = (int)fixed(c, 1); /* with a sign */
    h.line_base = line_base > 127 ? line_base - 256 : line_base;
    h.line_range = (unsigned)fixed(c, 1);
    h.opcode_base = (unsigned)fixed(c, 1);
    for (unsigned i = 1; i < h.opcode_base; i++)
        h.lengths[i] = (uint8_t)fixed(c, 1);
    if (!h.line_range || !h.opcode_base || c->bad)
        return;
    if (h.version == 5) {
        entries(r, c, false);
        entries(r, c, true);
    } else {
        entries_v4(r, c);
    }
    if (!c->bad)
        program(r, &rest, &h);
}

static int by_address(const void *a, const void *b)
{
    const struct vl_line *x = a, *y = b;
    if (x->address != y->address)
        return x->address < y->address ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

void vl_lines_read(struct vl_lines *lines, const uint8_t *file, size_t size)
{
    struct reader r = {.file = {file, size}, .lines = lines};
    struct cursor c = section(&r.file, ".debug_line");
    r.line_strings = section(&r.file, ".debug_line_str");
    r.strings = section(&r.file, ".debug_str");
    while (c.end - c.at >= 4) {
        uint64_t n = fixed(&c, 4);
        if (n > (uint64_t)(c.end - c.at)) /* a 64-bit table too */
            break;
        struct cursor one = {c.at, c.at + n, false};
        unit(&r, &one);
        c.at += n;
    }
    if (lines->count)
        qsort(lines->rows, lines->count, sizeof lines->rows[0], by_address);
}

void vl_lines_free(struct vl_lines *lines)
{
    free(lines->rows);
    free(lines->files);
}

bool vl_code_line(const struct vl_code *code, uint64_t offset, const char **file, uint32_t *line)
{
    const struct vl_lines *l = &code->p->lines;
    size_t low = 0, high = l->count; /* the first row beyond */
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (l->rows[middle].address <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    if (!low || !l->rows[low - 1].line || l->rows[low - 1].file == UINT32_MAX)
        return false;
    *file = l->files[l->rows[low - 1].file];
    *line = l->rows[low - 1].line;
    return true;
}
