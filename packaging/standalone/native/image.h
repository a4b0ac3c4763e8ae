/* Whether this process began with the image (image.c). */
extern volatile int is_image;
void keep(void);
void go_on(int argc, char **argv);
