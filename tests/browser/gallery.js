// Every kind of toast, to be looked at.
import { toast } from "../../om_plugins/browser/static/toasts.js";

const asked = new URLSearchParams(location.search);
if (asked.has("lang")) document.documentElement.lang = asked.get("lang");
if (asked.has("dir")) document.documentElement.dir = asked.get("dir");
const korean = document.documentElement.lang === "ko";
const say = (english, hangul) => (korean ? hangul : english);

const actions = () => [
  { label: say("Refresh", "새로 고침"), action: "refresh" },
  { label: say("Report problem", "문제 신고"), action: "report", value: "chain:assistant" },
];

const shows = {
  success: () => toast.success(say("Saved", "저장했습니다")),
  error: () =>
    toast.error(
      say("The assistant could not answer. It will be tried again in a moment.", "도우미가 답하지 못했습니다. 잠시 후 다시 시도합니다."),
      { title: say("Something went wrong", "문제가 생겼습니다"), actions: actions() },
    ),
  warning: () => toast.warning(say("This answer is from a copy made 5 minutes ago.", "5분 전에 만든 사본으로 답했습니다.")),
  info: () =>
    toast.info(
      say(
        "Version 5 is live. Your open pages keep working; reload them when it suits you to see the new overview of disks and networks.",
        "버전 5가 적용되었습니다. 열려 있는 페이지는 계속 쓸 수 있으며, 편할 때 새로 고치면 새 디스크와 네트워크 화면을 볼 수 있습니다.",
      ),
      { title: say("New version", "새 버전") },
    ),
  progress: () => run((job) => job.complete(say("Recovered", "복구했습니다"))),
  failing: () => run((job) => job.fail(say("It did not work", "복구하지 못했습니다"), { actions: actions() })),
  many: () => [1, 2, 3, 4, 5, 6, 7, 8].forEach((one) => toast.info(say(`Message ${one}`, `알림 ${one}`))),
};

function run(end) {
  const job = toast.progress(say("Recovering the assistant…", "도우미를 복구하는 중…"), { percent: 0 });
  let percent = 0;
  const timer = setInterval(() => {
    percent += 10;
    if (percent < 100) return job.update({ percent });
    clearInterval(timer);
    end(job);
  }, 400);
}

document.addEventListener("click", ({ target }) => shows[target.dataset?.show]?.());
const dialog = document.getElementById("dialog");
document.getElementById("open").onclick = () => dialog.showModal();
document.getElementById("close").onclick = () => dialog.close();

if (asked.has("all")) {
  shows.success();
  shows.success();
  shows.error();
  shows.warning();
  toast.progress(say("Recovering the assistant…", "도우미를 복구하는 중…"), { percent: 70 });
  shows.info();
  shows.many();
}
