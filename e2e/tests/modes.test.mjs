// Element Call announces membership in three ways (`matrix_rtc_mode`); its default, compatibility, has its own file.
import { ElementCall } from "../stack/participant.mjs";
import { Scenario } from "./scenario.mjs";

const scenario = Scenario.forThisFile();

for (const mode of ["legacy", "matrix_2_0"]) {
  scenario.test(`a call in mode ${mode}`, async (step) => {
    const names = ["Alice", "Bob", "Carol"];
    const { roomId, users } = await scenario.room({ names });
    const callers = [];

    await step("three see each other within 10 s of joining", async () => {
      for (const user of users) {
        callers.push(await scenario.open(ElementCall, user.displayName, scenario.stack.elementCallLink(user, roomId, { mode })));
      }
      await Promise.all(callers.map((caller) => caller.sees(names, 10_000)));
    });

    await step("each hears the two others", async () => {
      for (const caller of callers) await caller.hears(2, 10_000);
    });

    await step("who leaves is gone within 2 s", async () => {
      await callers[2].leave();
      await Promise.all(callers.slice(0, 2).map((caller) => caller.loses("Carol", 2_000)));
    });
  });
}
