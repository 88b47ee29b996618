// What the script of every page begins with.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const find = (selector, below = document) => below.querySelector(selector);
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
