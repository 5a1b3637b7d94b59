"""The mutation tool itself: what it takes for a site, and that its list of equivalents stays true."""
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts"))
import mutants  # noqa: E402  (after the path)
import mutants_amd  # noqa: E402
import mutants_exchange  # noqa: E402
import mutants_nvidia  # noqa: E402
import mutants_opencl  # noqa: E402

SOURCE = '''
#define TWICE(x) (2 * (x))
/* a + b */
static int add(const int *a, int n)
{
    int sum = 0; // 1 + 1
    for (int i = 0; i < n; i++)
        sum += a[i] * -1;
    return fail("a + %d", n + 1) ? sum : 3.5f > n;
}
void K(linear)(int *y)
{
    *y = 4;
}
'''


class Mutants(unittest.TestCase):
    def test_sites_are_operators_and_constants_of_code(self):
        found = [(m.function, m.old, m.new) for m in mutants.sites("a.c", SOURCE)]
        self.assertIn(("add", "<", "<="), found)
        self.assertIn(("add", "+=", "-="), found)
        self.assertIn(("add", "*", "/"), found)
        self.assertIn(("add", "3.5f", "(2 * 3.5f)"), found)
        self.assertIn(("linear", "4", "5"), found)
        self.assertNotIn(("add", "+", "-"), found)  # only in comments, macros and messages
        self.assertFalse([m for m in found if m[1] == "2"])  # a macro's
        self.assertFalse([m for m in found if m[0] == "linear" and m[1] == "*"])  # one operand

    def test_a_name_says_which(self):
        source = "int f(void)\n{\n    return 1 + 1 + 2;\n}\n"
        names = [m.name() for m in mutants.sites("a.c", source)]
        self.assertEqual(len(names), len(set(names)))
        moved = [m.name() for m in mutants.sites("a.c", "int g;\n\n" + source)]
        self.assertEqual(names, moved)
        for m in mutants.sites("a.c", source):
            self.assertTrue(source[m.offset:].startswith(m.old))

    def test_equivalents_must_be_sites_and_have_a_proof(self):
        with self.assertRaises(ValueError):
            mutants.Equivalents("a.c | f | x = 1; | 1 -> 2\n")
        e = mutants.Equivalents("a.c | f | return 1 + 1 + 2; | #2 1 -> 2 | a proof\n"
                                "a.c | g | * | * | a proof\n")
        held = [m for m in mutants.sites("a.c", "int f(void)\n{\n    return 1 + 1 + 2;\n}\n")
                if e.hold(m)]
        self.assertEqual([(m.nth, m.old, m.new) for m in held], [(2, "1", "2")])
        self.assertEqual(e.stale(), [2])

    def test_sites_of_ptx(self):
        source = ("#define HALF(r) shr.u32 r, r, 1;\n.visible .entry f(.param .u32 p_n)\n{\n"
                  "    .reg .u32 n;\n    ARG32(n, p_n)\n    @!p add.u32 n, n, 4;  // 1\n    SYNC\n"
                  "    setp.lt.u32 p, n, 0x10;\n    fma.rn.f32 a, b, 0f3F800000, c;\n}\n")
        found = [(m.function, m.old, m.new) for m in mutants_nvidia.sites("f.ptx", source)]
        self.assertEqual(found, [
            ("f", "shr", "shl"), ("f", "1", "2"), ("f", "@!", "@"), ("f", "add", "sub"), ("f", "4", "5"),
            ("f", "SYNC", "bar.warp.sync 0xFFFFFFFF;"), ("f", "lt", "le"), ("f", "0x10", "17"),
            ("f", "0f3F800000", "0f3F000000")])

    def test_equivalents_of_ptx_are_sites(self):
        e = mutants.Equivalents(mutants_nvidia.EQUIVALENTS.read_text(encoding="utf-8"))
        mutants_nvidia.sample(1, 1, e)
        self.assertEqual(e.stale(), [])

    def test_sites_of_exchanges(self):
        source = ("#define SIGNAL \\\n    SYNC \\\n    @p st.release.sys.global.u32 [peer + EXCHANGE_FLAGS], epoch;\n"
                  ".visible .entry f(.param .u32 p_n)\n{\n    SIGNAL\n    AWAIT  // SYNC\n}\n")
        found = [(m.function, m.old, m.new) for m in mutants_exchange.Nvidia.sites("f.ptx", source)[0]]
        self.assertEqual(found, [
            ("SIGNAL", "SYNC", ""), ("SIGNAL", ".release.", ".relaxed."), ("SIGNAL", ".sys", ".gpu"),
            ("SIGNAL", "EXCHANGE_FLAGS", "EXCHANGE_FLAGS + 4"), ("SIGNAL", "epoch", "turn"),
            ("f", "SIGNAL", ""), ("f", "AWAIT", "")])

    def test_equivalents_of_exchanges_are_sites(self):
        e = mutants.Equivalents(mutants_exchange.EQUIVALENTS.read_text(encoding="utf-8"))
        for kind in (mutants_exchange.Nvidia, mutants_exchange.Amd):
            mutants_exchange.chosen(kind, 1, 0, e)
        self.assertEqual(e.stale(), [])

    def test_sites_of_hip(self):
        source = ("template <int T> DEVICE int f(const view &a, floats<T> *b)\n{\n    barrier();\n"
                  "    return at<2>(a) < T && a.x * 3;\n}\n\nKERNEL(64) g(arguments a)\n{\n    *a.y = 4;\n}\n")
        found = [(m.function, m.old, m.new) for m in mutants_amd.sites("f.hip", source)]
        self.assertEqual(found, [
            ("f", "<", "<="), ("f", "&&", "||"), ("f", "*", "/"), ("f", "3", "4"), ("f", "3", "2"),
            ("g", "4", "5"), ("g", "4", "3"), ("f", "barrier()", "(void)0")])

    def test_each_file_of_hip_has_cases(self):
        files = {path.stem for path in mutants_amd.KERNELS.glob("*.hip")}
        self.assertEqual(set(mutants_amd.CASES), files - mutants_amd.LEFT_OUT)
        self.assertLess(mutants_amd.LEFT_OUT, files)

    def test_equivalents_of_hip_are_sites(self):
        e = mutants.Equivalents(mutants_amd.EQUIVALENTS.read_text(encoding="utf-8"))
        mutants_amd.sample(1, e)
        self.assertEqual(e.stale(), [])

    def test_lists_of_opencl_are_sites(self):
        e = mutants.Equivalents(mutants_opencl.EQUIVALENTS.read_text(encoding="utf-8"))
        chosen = mutants_opencl.sample(4, 1, e)
        self.assertEqual(e.stale(), [])
        for kernel in mutants_opencl.CASES:
            self.assertGreaterEqual(sum(kernel in users for users in chosen.values()), 3, kernel)
        names = {m.name() for m in mutants_opencl.every_site()}
        caught = mutants_opencl.CAUGHT.read_text(encoding="utf-8").splitlines()
        self.assertEqual([name for name in caught if name not in names], [])

    def test_the_sample_has_three_of_each_op_and_repeats(self):
        def draw(seed):
            e = mutants.Equivalents(mutants.EQUIVALENTS.read_text(encoding="utf-8"))
            ops, chosen, _ = mutants.sample(150, seed, e)
            self.assertEqual(e.stale(), [])
            return ops, {m.name(): op for m, op in chosen.items()}
        ops, chosen = draw(1)
        self.assertEqual((len(ops), len(chosen)), (31, 150))
        for op in ops:
            self.assertEqual(sum(of == op for of in chosen.values()), 3, op)
        self.assertEqual(draw(1), (ops, chosen))
        self.assertNotEqual(draw(2)[1], chosen)


unittest.main(verbosity=2)
