/* The driver's own declarations against the toolkit's cuda.h: every number and layout. */
#include <stdio.h>
#include <string.h>

#include "cuda_abi.h"
#define ABI_TABLE own_table
#define ABI_ROWS own_rows
#include "abi_table.h"

const struct abi_row *toolkit_rows(int *count);

int main(void)
{
    int mine, theirs, wrong = 0;
    const struct abi_row *a = own_rows(&mine), *b = toolkit_rows(&theirs);
    for (int i = 0; i < mine && i < theirs; i++)
        if (strcmp(a[i].name, b[i].name) || a[i].value != b[i].value) {
            printf("%s: %lld here, %lld in cuda.h\n", a[i].name, a[i].value, b[i].value);
            wrong++;
        }
    printf("%d numbers and layouts compared, %d differ\n", mine, wrong);
    return wrong || mine != theirs || mine < 150;
}
