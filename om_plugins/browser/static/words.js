// The texts of the browser modules, in the page's language.
//
//   import { setWords } from "/_om/static/words.js";
//   setWords({ lost: "No connection." }); // "{}" stands for the number or name

const WORDS = {
  en: {
    success: "Done", error: "Error", warning: "Warning", info: "Note", progress: "In progress",
    region: "Notifications (F6)", close: "Close", more: "{} more",
    lost: "The connection was lost. Trying again…", restored: "The connection is back.",
    retry: "Try now", sending: "Sending the report…", sent: "Thank you: report {} was sent.",
    unsent: "The report could not be sent.", again: "Try again",
  },
  ko: {
    success: "완료", error: "오류", warning: "주의", info: "알림", progress: "진행 중",
    region: "알림 (F6)", close: "닫기", more: "{}개 더 보기",
    lost: "연결이 끊어졌습니다. 다시 연결하는 중…", restored: "다시 연결되었습니다.",
    retry: "지금 연결", sending: "신고를 보내는 중…", sent: "감사합니다. 신고 {}번이 접수되었습니다.",
    unsent: "신고를 보내지 못했습니다.", again: "다시 시도",
  },
};
const own = {};

/** Return the text for `key`: the page's own, else Korean on a Korean page, else English. */
export function word(key, value = "") {
  const language = document.documentElement.lang || navigator.language || "";
  const known = WORDS[language.toLowerCase().split("-")[0]] ?? WORDS.en;
  return (own[key] ?? known[key]).replace("{}", () => value);
}

/** Set texts, for another language for example. */
export function setWords(changes) {
  Object.assign(own, changes);
}
