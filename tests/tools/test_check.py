"""moehal check from outside: what it counts, shows and returns, on devices that are right and wrong."""
import json
import os
import re
import shlex
import shutil
import subprocess
import xml.etree.ElementTree

from command import TOOL, MODULES, ON_NULL, Folder, good, main, moehal

WRONG = os.path.join(os.path.dirname(MODULES), "conformance", "moehal_wrong.so")


class Check(Folder):
    def on_wrong(self, mistake=None, exclusions=None):
        """Environment with the backend of one kernel, and its exclusions beside it."""
        folder = self.path("backends")
        os.makedirs(folder, exist_ok=True)
        shutil.copy(WRONG, folder)
        if exclusions is not None:
            with open(os.path.join(folder, "moehal_wrong.exclusions"), "w", encoding="utf-8") as f:
                f.write(exclusions)
        env = {"MOEHAL_BACKENDS": folder}
        return env if mistake is None else dict(env, MOEHAL_WRONG=mistake)

    def check(self, *arguments, env=None):
        status, out, err = moehal("check", *arguments, "--json", env=env)
        return status, json.loads(out), err

    def test_the_host_passes_and_counts(self):
        status, report, _ = self.check("--device", "host", "--quick", "--filter", "[l-m]*")
        self.assertEqual(status, 0)
        self.assertEqual(report["device"], "host:0")
        self.assertFalse(report["virtual"])
        self.assertEqual(report["cases"], report["passed"])
        self.assertEqual(report["native"], report["op_cases"])
        cells = [cell for row in report["matrix"].values() for cell in row.values()]
        self.assertEqual(sum(cell["exact"] for cell in cells), report["op_cases"])
        self.assertEqual(set(report["matrix"]["linear"]), {"f32", "f16", "bf16", "fp8"})
        self.assertEqual(set(report["matrix"]["mla_kv"]), {"f32", "bf16"})

    def test_an_op_is_tried_in_every_layout_and_with_every_kind_of_value(self):
        names = []
        process = subprocess.run([TOOL, "check", "--device", "host", "--filter", "add/*", "--junit",
                                  self.path("a.xml")], check=True, stdout=subprocess.PIPE)
        self.assertIn(b"exact:", process.stdout)
        for case in xml.etree.ElementTree.parse(self.path("a.xml")).getroot():
            names.append(case.get("name"))
        self.assertGreater(len(names), 150)
        for layout in ("dense", "gaps", "shifted", "inplace"):
            self.assertTrue(any(f"/{layout}/" in name for name in names))
        for values in ("random", "ints", "special", "tiny", "wide"):
            self.assertTrue(any(f"/{values}/" in name for name in names))
        self.assertTrue(any("/T0." in name for name in names))

    def test_null_passes_the_core_and_says_that_nothing_ran(self):
        status, report, err = self.check("--device", "null", "--quick", env=ON_NULL)
        self.assertEqual(status, 1)
        self.assertIn("no op ran natively", err)
        self.assertEqual(report["failed"], 0, report["failures"])
        self.assertEqual(report["native"], 0)
        self.assertGreater(report["passed"], 25)
        self.assertGreater(report["fallback"], 1000)
        self.assertEqual(report["passed"] + report["fallback"], report["cases"])
        self.assertEqual(report["matrix"]["linear"]["fp8"]["reason"], "null has no kernels")

    def test_a_device_without_the_fast_profile_does_not_pass_it(self):
        fast = "--profile", "fast", "--filter", "fast/products*"
        status, report, err = self.check("--device", "null", *fast, env=ON_NULL)
        self.assertEqual(status, 1)
        self.assertIn("no op ran natively on null:0: null has no kernels", err)
        self.assertEqual((report["native"], report["fallback"]), (0, report["cases"]))
        status, report, _ = self.check("--device", "host", *fast, env={"MOEHAL_HOST_FAST": "none"})
        self.assertEqual(status, 0)
        self.assertEqual((report["native"], report["op_cases"]), (report["passed"], report["cases"]))

    def test_a_right_kernel_turns_its_cell(self):
        status, report, err = self.check("--device", "wrong", "--quick", "--filter", "[a-c]*/*",
                                         env=self.on_wrong())
        self.assertEqual((status, err), (0, ""))
        self.assertGreater(report["matrix"]["add"]["f32"]["exact"], 5)
        self.assertEqual(report["matrix"]["add"]["f32"]["fallback"], 0)
        self.assertEqual(report["matrix"]["copy"]["f32"]["exact"], 0)
        self.assertEqual(report["native"], report["matrix"]["add"]["f32"]["exact"])

    def test_each_mistake_is_seen_and_its_command_repeats_it(self):
        for mistake, words in (("value", "the host has"), ("outside", "wrote outside its outputs"),
                               ("fails", "wrong: no")):
            env = self.on_wrong(mistake)
            status, out, _ = moehal("check", "--device", "wrong", "--quick", "--filter", "add/*",
                                    env=env)
            self.assertEqual(status, 1)
            first = re.search(r"FAIL (\S+): (.*)\n +moehal (check .*)\n", out)
            self.assertIn(words, first[2])
            self.assertRegex(out, r"add +FAILED")
            status, again, _ = moehal(*shlex.split(first[3]), env=env)
            self.assertEqual(status, 1)
            self.assertEqual(re.search(r"FAIL (\S+): (.*)\n", again).groups(),
                             (first[1], first[2]))
            self.assertIn(" 1 cases, 0 passed, 1 failed", again)
            # The same case on a device without the mistake passes.
            self.assertEqual(moehal(*shlex.split(first[3]), env=self.on_wrong())[0], 0)

    def test_a_kernel_of_some_shapes_is_neither_exact_nor_missing(self):
        status, report, _ = self.check("--device", "wrong", "--filter", "add/*",
                                       env=self.on_wrong("sometimes"))
        cell = report["matrix"]["add"]["f32"]
        self.assertEqual(status, 0)
        self.assertTrue(cell["exact"] > 0 and cell["fallback"] > 0)
        self.assertEqual(cell["reason"], "odd widths have no kernel")

    def test_an_exclusion_has_a_reason_and_does_not_outlive_it(self):
        wanted = "--device", "wrong", "--quick", "--filter", "add/*"
        excluded = "# what is known\nadd/*/special/*  NaN has the wrong sign\n"
        status, report, _ = self.check(*wanted, env=self.on_wrong("value", "add/*/T[1-9]* off by one\n"))
        self.assertEqual((status, report["failed"]), (0, 0))
        self.assertGreater(report["excluded"], 5)
        self.assertEqual(report["excluded"] + report["passed"], report["cases"])  # T0 does nothing
        status, report, _ = self.check(*wanted, env=self.on_wrong(exclusions=excluded))
        self.assertEqual(status, 1)
        self.assertGreater(report["failed"], 0)
        for failure in report["failures"]:
            self.assertRegex(failure["case"], "/special/")
            self.assertRegex(failure["message"], r"exclusions:2 excludes it .*stale")
        status, _, err = moehal("check", *wanted, env=self.on_wrong(exclusions="add/*\n"))
        self.assertEqual(status, 2)
        self.assertIn("exclusions:1: 'add/*' has no reason", err)

    def test_names_and_seeds_say_all(self):
        one = "linear/fp8/T3.O130.I257/gaps/special/plain"  # of any size, in the list or not
        status, report, _ = self.check("--device", "host", "--filter", one)
        self.assertEqual((status, report["cases"], report["passed"]), (0, 1, 1))
        for seed in (5, 6):
            self.assertEqual(self.check("--device", "host", "--quick", "--filter", "rope/*",
                                        "--seed", seed)[0], 0)
        good("check", "--device", "host", "--quick", "--filter", "rope/*", "--junit",
             self.path("a.xml"), "--seed", 5)
        good("check", "--device", "host", "--quick", "--filter", "rope/*", "--junit",
             self.path("b.xml"), "--seed", 6)
        names = [[case.get("name") for case in xml.etree.ElementTree.parse(self.path(f)).getroot()]
                 for f in ("a.xml", "b.xml")]
        self.assertNotEqual(*names)

    def test_junit_says_what_failed_and_what_fell_back(self):
        env = self.on_wrong("value")
        moehal("check", "--device", "wrong", "--quick", "--filter", "a[dr]*/*", "--junit",
               self.path("r.xml"), env=env)
        cases = list(xml.etree.ElementTree.parse(self.path("r.xml")).getroot())
        failed = [c for c in cases if c.find("failure") is not None]
        skipped = [c for c in cases if c.find("skipped") is not None]
        self.assertTrue(failed and skipped)
        self.assertEqual(len(failed) + len(skipped), len(cases) - sum(
            "/T0." in c.get("name") for c in cases if c.get("name").startswith("add/")))
        self.assertTrue(all(c.get("classname") == "wrong:0.add" for c in failed))
        self.assertIn("fallback: null has no kernels", skipped[0].find("skipped").get("message"))

    def test_bad_usage(self):
        for arguments, words in (
                (["--profile", "slow"], "must be exact or fast"),
                (["--filter", "nothing/*"], "no case is called 'nothing/*'"),
                (["--filter", "linear/fp8/T3.O130/gaps/special/plain"], "no case is called"),
                (["--filter", "linear/i32/T3.O1.I1/gaps/special/plain"], "no case is called"),
                (["--device", "nowhere"], "nothing matches"),
                (["--junit", self.path("no", "folder.xml")], "cannot be written"),
                (["--seed", "-1"], "out of range")):
            status, out, err = moehal("check", *arguments)
            self.assertEqual(status, 2, (arguments, err))
            self.assertEqual(out, "")
            self.assertIn(words, err)


main()
