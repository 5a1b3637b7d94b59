/* disassemble: for each line of up to three hexadecimal words, "length text" as the decoder has it.
 */
#include <stdio.h>

#include "../../../../virtual/amd/machine.h"

int main(void)
{
    char line[128], text[400];
    while (fgets(line, sizeof line, stdin)) {
        uint32_t words[3];
        int n = sscanf(line, "%x %x %x", &words[0], &words[1], &words[2]);
        if (n < 1)
            return 2;
        unsigned length = va_disassemble(words, (size_t)n, text, sizeof text);
        printf("%u %s\n", length, text);
    }
    return 0;
}
